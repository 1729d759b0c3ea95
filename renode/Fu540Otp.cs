// SPDX-License-Identifier: Apache-2.0
// The one-time programmable memory of the FU540 (FU540-C000 manual, 12): a bit reads 1 until it is programmed to 0, for good.
using System.Linq;
using Antmicro.Renode.Peripherals.Bus;

namespace Antmicro.Renode.Peripherals.Miscellaneous
{
    public class Fu540Otp : IDoubleWordPeripheral, IKnownSize
    {
        public uint ReadDoubleWord(long offset)
        {
            return offset == DataOut ? words[registers[Address / 4] % Words] : registers[offset / 4 % Registers];
        }

        public void WriteDoubleWord(long offset, uint value)
        {
            registers[offset / 4 % Registers] = value;
            if(offset == WriteEnable && value != 0 && registers[Program / 4] != 0 && registers[DataIn / 4] == 0)
            {
                words[registers[Address / 4] % Words] &= ~(1u << (int)(registers[Bit / 4] % 32));
            }
        }

        // What was programmed outlives a reset.
        public void Reset()
        {
            System.Array.Clear(registers, 0, registers.Length);
        }

        public long Size => 0x1000;

        private readonly uint[] registers = new uint[Registers];
        private readonly uint[] words = Enumerable.Repeat(0xFFFFFFFFu, Words).ToArray();

        private const int Words = 0x1000;
        private const int Registers = 0x400;
        private const long Address = 0x00;
        private const long Bit = 0x04;
        private const long DataIn = 0x14;
        private const long DataOut = 0x18;
        private const long Program = 0x20;
        private const long WriteEnable = 0x38;
    }
}
