// SPDX-License-Identifier: Apache-2.0
// 64 MB of parallel NOR flash: two 16-bit parts side by side with Intel's command set (JESD68), as far as cext/monitor/cfi.c uses it.
// Both parts get the same command, so the low half of a word says what is done; programming only clears bits.
using System;
using System.IO;
using Antmicro.Renode.Core;
using Antmicro.Renode.Peripherals.Bus;
using Antmicro.Renode.Utilities;

namespace Antmicro.Renode.Peripherals.MTD
{
    [AllowedTranslations(AllowedTranslation.ByteToDoubleWord | AllowedTranslation.WordToDoubleWord | AllowedTranslation.QuadWordToDoubleWord)]
    public class TwoIntelParts : IDoubleWordPeripheral, IKnownSize
    {
        public TwoIntelParts()
        {
            Array.Fill(content, (byte)0xFF);
        }

        // What a factory writes.
        public void Load(ReadFilePath fileName, long offset)
        {
            var data = File.ReadAllBytes(fileName);
            Array.Copy(data, 0, content, offset, data.Length);
        }

        public uint ReadDoubleWord(long offset)
        {
            switch(mode)
            {
            case Mode.Query:
                var at = offset / 4 - 0x10;
                return at >= 0 && at < 3 ? Both("QRY"[(int)at]) : 0;
            case Mode.Status:
            case Mode.Count:
            case Mode.Fill:
                return Both(Ready);
            default:
                return BitConverter.ToUInt32(content, (int)offset);
            }
        }

        public void WriteDoubleWord(long offset, uint value)
        {
            if(mode == Mode.Count)
            {
                left = (value & 0xFFFF) + 1;
                mode = Mode.Fill;
                return;
            }
            if(mode == Mode.Fill && left > 0)
            {
                Clear(offset, value);
                left--;
                return;
            }
            switch(value & 0xFF)
            {
            case 0xE8:
                mode = Mode.Count;
                break;
            case 0x20:
                mode = Mode.Erase;
                break;
            case 0x98:
                mode = Mode.Query;
                break;
            case 0xFF:
                mode = Mode.Array;
                break;
            case 0xD0:
                if(mode == Mode.Erase)
                {
                    Array.Fill(content, (byte)0xFF, (int)(offset / Block * Block), Block);
                }
                mode = Mode.Status;
                break;
            case 0x50:
                break;
            default:
                mode = Mode.Status;
                break;
            }
        }

        // The content outlives a reset.
        public void Reset()
        {
            mode = Mode.Array;
        }

        public long Size => Bytes;

        private static uint Both(uint value) => value << 16 | value;

        private void Clear(long offset, uint value)
        {
            var now = BitConverter.ToUInt32(content, (int)offset) & value;
            Array.Copy(BitConverter.GetBytes(now), 0, content, offset, 4);
        }

        private Mode mode;
        private uint left;
        private readonly byte[] content = new byte[Bytes];

        private const int Bytes = 0x4000000;
        private const int Block = 0x40000;
        private const uint Ready = 0x80;

        private enum Mode
        {
            Array,
            Status,
            Query,
            Erase,
            Count,
            Fill,
        }
    }
}
