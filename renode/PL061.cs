// SPDX-License-Identifier: Apache-2.0
// ARM PrimeCell GPIO PL061 (ARM DDI 0190): eight pins.  Address bits 9:2 of the data register say which bits an access sees;
// a write leaves those of inputs.
// Interrupts and the alternate function are registers without effect: nothing here uses them.
using Antmicro.Renode.Core;
using Antmicro.Renode.Logging;
using Antmicro.Renode.Peripherals.Bus;

namespace Antmicro.Renode.Peripherals.GPIOPort
{
    [AllowedTranslations(AllowedTranslation.ByteToDoubleWord | AllowedTranslation.WordToDoubleWord)]
    public class PL061 : BaseGPIOPort, IDoubleWordPeripheral, IKnownSize
    {
        public PL061(IMachine machine) : base(machine, Pins)
        {
        }

        public uint ReadDoubleWord(long offset)
        {
            if(offset < Direction)
            {
                return (output & direction | Inputs() & ~direction) & (uint)(offset >> 2) & 0xFF;
            }
            if(offset == Direction)
            {
                return direction;
            }
            if(offset >= Identification && offset < Size)
            {
                return identity[(offset - Identification) / 4];
            }
            return offset < Identification && others.Length > (offset - Direction) / 4 ? others[(offset - Direction) / 4] : 0;
        }

        public void WriteDoubleWord(long offset, uint value)
        {
            if(offset < Direction)
            {
                var mask = (uint)(offset >> 2) & direction;
                output = output & ~mask | value & mask;
                Drive();
            }
            else if(offset == Direction)
            {
                direction = value & 0xFF;
                Drive();
            }
            else if((offset - Direction) / 4 < others.Length)
            {
                others[(offset - Direction) / 4] = value & 0xFF;
            }
            else
            {
                this.Log(LogLevel.Warning, "write to 0x{0:X} ignored", offset);
            }
        }

        public override void Reset()
        {
            base.Reset();
            output = direction = 0;
            System.Array.Clear(others, 0, others.Length);
        }

        public long Size => 0x1000;

        private uint Inputs()
        {
            var bits = 0u;
            for(var i = 0; i < Pins; i++)
            {
                bits |= State[i] ? 1u << i : 0;
            }
            return bits;
        }

        private void Drive()
        {
            for(var i = 0; i < Pins; i++)
            {
                Connections[i].Set((output & direction & 1u << i) != 0);
            }
        }

        private uint output;
        private uint direction;
        private readonly uint[] others = new uint[9]; // interrupt registers and AFSEL, from 0x400 on
        private static readonly uint[] identity = { 0x61, 0x10, 0x04, 0x00, 0x0D, 0xF0, 0x05, 0xB1 };

        private const int Pins = 8;
        private const long Direction = 0x400;
        private const long Identification = 0xFE0;
    }
}
