// SPDX-License-Identifier: Apache-2.0
// What the models in renode/ use of Renode, declared in our own words, and a driver, so that tests/monitor/test_models.py can run them.
// Renode has the real declarations; that these have the same shape is read from its sources, not tried.
using System;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;
using Antmicro.Renode.Core;
using Antmicro.Renode.Peripherals.Bus;
using Antmicro.Renode.Peripherals.GPIOPort;
using Antmicro.Renode.Peripherals.Miscellaneous;
using Antmicro.Renode.Peripherals.MTD;

namespace Antmicro.Renode.Core
{
    public interface IMachine
    {
    }

    public class GPIO
    {
        public void Set(bool value) => IsSet = value;

        public bool IsSet { get; private set; }
    }
}

namespace Antmicro.Renode.Logging
{
    public enum LogLevel
    {
        Warning,
    }

    public static class Logger
    {
        public static void Log(this IDoubleWordPeripheral peripheral, LogLevel level, string message, params object[] values)
        {
            Console.Error.WriteLine(message, values);
        }
    }
}

namespace Antmicro.Renode.Utilities
{
    public class ReadFilePath
    {
        public static implicit operator string(ReadFilePath path) => path.name;

        private readonly string name = "";
    }
}

namespace Antmicro.Renode.Peripherals.Bus
{
    [Flags]
    public enum AllowedTranslation
    {
        ByteToDoubleWord = 1,
        WordToDoubleWord = 2,
        QuadWordToDoubleWord = 4,
    }

    public class AllowedTranslationsAttribute : Attribute
    {
        public AllowedTranslationsAttribute(AllowedTranslation allowed)
        {
        }
    }

    public interface IKnownSize
    {
        long Size { get; }
    }

    public interface IDoubleWordPeripheral
    {
        uint ReadDoubleWord(long offset);

        void WriteDoubleWord(long offset, uint value);

        void Reset();
    }
}

namespace Antmicro.Renode.Peripherals.GPIOPort
{
    public abstract class BaseGPIOPort
    {
        protected BaseGPIOPort(IMachine machine, int pins)
        {
            State = new bool[pins];
            Connections = Enumerable.Range(0, pins).ToDictionary(pin => pin, pin => new GPIO());
        }

        public virtual void Reset()
        {
            Array.Clear(State, 0, State.Length);
        }

        public IReadOnlyDictionary<int, GPIO> Connections { get; }

        protected bool[] State { get; }
    }
}

public static class Models
{
    // "Models NAME": reads lines from standard input, answers each "r" and "p" (levels of the pins) with a line.
    public static void Main(string[] names)
    {
        var models = new Dictionary<string, Func<IDoubleWordPeripheral>>
        {
            { "Fu540Otp", () => new Fu540Otp() },
            { "PL061", () => new PL061(null) },
            { "TwoIntelParts", () => new TwoIntelParts() },
        };
        var model = models[names[0]]();
        for(string line; (line = Console.ReadLine()) != null;)
        {
            var words = line.Split(' ');
            var values = words.Skip(1).Select(word => long.Parse(word, NumberStyles.HexNumber)).ToArray();
            switch(words[0])
            {
            case "r":
                Console.WriteLine(model.ReadDoubleWord(values[0]).ToString("x"));
                break;
            case "w":
                model.WriteDoubleWord(values[0], (uint)values[1]);
                break;
            case "p":
                Console.WriteLine(((BaseGPIOPort)model).Connections.Sum(pin => pin.Value.IsSet ? 1 << pin.Key : 0).ToString("x"));
                break;
            case "reset":
                model.Reset();
                break;
            }
        }
    }
}
