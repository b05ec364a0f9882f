//! BPF instructions, as far as it matters which registers they touch and where they lead. RFC 9669.

use anyhow::{Result, bail};

/// Every instruction takes 8 bytes, but for the one that loads 64 bits: that takes two.
pub(super) const SIZE: usize = 8;
/// r0 to r9 can be written.
pub(super) const REGISTERS: u8 = 10;

const LOAD_64: u8 = 0x18;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const JUMP: u8 = 0x05;
/// Says in the source register of a call that it is of a function of the object.
const PSEUDO_CALL: u8 = 1;

/// A set of registers, by their bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Registers(u16);

impl Registers {
    /// r1 to r5.
    pub(super) const ARGUMENTS: Self = Self(0b11_1110);

    const fn of(register: u8) -> Self {
        Self(1 << register)
    }

    /// The first ones of r1 to r5.
    pub(super) const fn arguments(count: u8) -> Self {
        Self(((1 << (count + 1)) - 1) & Self::ARGUMENTS.0)
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Some register that is not among these.
    pub(super) fn missing(self) -> Option<u8> {
        (0..REGISTERS).rev().find(|register| self.0 & (1 << register) == 0)
    }
}

/// One instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u8,
    pub(super) destination: u8,
    pub(super) source: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

/// Where an instruction leads. Distances are in instructions, from the next one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Jump(i16),
    Branch(i16),
    End,
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Callee {
    /// One of the kernel's, by its number.
    Helper(i32),
    /// One of the object's.
    Function,
}

impl Instruction {
    /// # Errors
    /// For what a compiler of today does not make.
    pub(super) fn read(bytes: [u8; SIZE]) -> Result<Self> {
        let [code, registers, low, high, immediate @ ..] = bytes;
        let read = Self {
            code,
            destination: registers & 0xf,
            source: registers >> 4,
            offset: i16::from_le_bytes([low, high]),
            immediate: i32::from_le_bytes(immediate),
        };
        let class = code & 7;
        let is_known = match class {
            0 => code == LOAD_64,
            5 => code != 0x8d,
            6 => code != 0x06,
            _ => true,
        };
        if !is_known {
            bail!("there is an instruction of code {code:#x}, which this does not know");
        }
        Ok(read)
    }

    pub(super) fn bytes(self) -> [u8; SIZE] {
        let [low, high] = self.offset.to_le_bytes();
        let [a, b, c, d] = self.immediate.to_le_bytes();
        [self.code, self.destination | self.source << 4, low, high, a, b, c, d]
    }

    /// Whether it goes on in the next 8 bytes.
    pub(super) const fn is_long(self) -> bool {
        self.code == LOAD_64
    }

    pub(super) fn flow(self) -> Flow {
        match self.code {
            EXIT => Flow::End,
            JUMP => Flow::Jump(self.offset),
            CALL => Flow::Next,
            code if matches!(code & 7, 5 | 6) => Flow::Branch(self.offset),
            _ => Flow::Next,
        }
    }

    pub(super) fn callee(self) -> Option<Callee> {
        match (self.code, self.source) {
            (CALL, PSEUDO_CALL) => Some(Callee::Function),
            (CALL, _) => Some(Callee::Helper(self.immediate)),
            _ => None,
        }
    }

    /// Registers that it reads, but for the arguments of a call, and those that it writes without regard to what was there.
    pub(super) fn touches(self) -> (Registers, Registers) {
        const NONE: Registers = Registers(0);
        let (destination, source) = (Registers::of(self.destination), Registers::of(self.source));
        let operand = if self.code & 0x08 == 0 { NONE } else { source };
        match (self.code & 7, self.code) {
            (0, _) => (NONE, destination),
            (1, _) => (source, destination),
            (2, _) => (destination, NONE),
            // What an atomic one fetches is left out: it counts as needed, though it is not. One of them compares with r0.
            (3, code) if code & 0xe0 == 0xc0 => (destination.and(source).and(Registers::of(0)), NONE),
            (3, _) => (destination.and(source), NONE),
            (5, CALL) => (NONE, Registers::of(0).and(Registers::ARGUMENTS)),
            (5, EXIT) => (Registers::of(0), NONE),
            (5, JUMP) => (NONE, NONE),
            (5 | 6, _) => (destination.and(operand), NONE),
            // A move.
            (_, code) if code & 0xf0 == 0xb0 => (operand, destination),
            // A change of the order of bytes: its bit for the source says which.
            (_, code) if code & 0xf0 == 0xd0 => (destination, destination),
            _ => (destination.and(operand), destination),
        }
    }

    /// Stores a one where a register points to, at `offset`; before it, [`Self::point`].
    pub(super) const fn store_one(register: u8) -> Self {
        Self { code: 0x72, destination: register, source: 0, offset: 0, immediate: 1 }
    }

    /// Lets a register point to a place in a section, once a loader has put in where that is.
    pub(super) const fn point(register: u8, place: i32) -> [Self; 2] {
        let first = Self { code: LOAD_64, destination: register, source: 0, offset: 0, immediate: place };
        [first, Self { code: 0, destination: 0, source: 0, offset: 0, immediate: 0 }]
    }
}

/// How many arguments a helper of the kernel has: `include/uapi/linux/bpf.h`. Five at most, for what is not listed.
pub(super) const fn arity(helper: i32) -> u8 {
    match helper {
        5 | 7 | 8 | 118 | 125 | 160 => 0,
        34 | 41 | 93 | 94 | 188 => 1,
        1 | 3 | 23 | 32 | 39 | 40 | 43 | 44 | 54 | 65 | 132 | 133 | 135 | 155 => 2,
        12 | 13 | 31 | 38 | 51 | 131 => 3,
        2 | 26 | 50 | 69 | 130 | 152 | 189 | 190 => 4,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::{Callee, Flow, Instruction, Registers};

    #[test]
    fn an_instruction_is_written_as_it_was_read() {
        // if r6 == 0x11 goto +3
        let bytes = [0x15, 0x06, 3, 0, 0x11, 0, 0, 0];
        let read = Instruction::read(bytes).unwrap();
        assert_eq!((read.flow(), read.bytes()), (Flow::Branch(3), bytes));
        assert_eq!(read.touches(), (Registers::of(6), Registers::default()));
        // call r3
        assert!(Instruction::read([0x8d, 3, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn it_is_known_which_registers_are_needed_and_which_are_lost() {
        let touches = |code, destination, source| {
            Instruction { code, destination, source, offset: 0, immediate: 1 }.touches()
        };
        let (one, two, none) = (Registers::of(1), Registers::of(2), Registers::default());
        assert_eq!(touches(0xbf, 1, 2), (two, one), "a move");
        assert_eq!(touches(0xb7, 1, 0), (none, one), "a number");
        assert_eq!(touches(0x0f, 1, 2), (one.and(two), one), "a sum");
        assert_eq!(touches(0xdc, 1, 0), (one, one), "to big endian");
        assert_eq!(touches(0x71, 1, 2), (two, one), "a load");
        assert_eq!(touches(0x1d, 1, 2), (one.and(two), none), "a comparison");
        let call = Instruction { code: 0x85, destination: 0, source: 1, offset: 0, immediate: -1 };
        assert_eq!(call.callee(), Some(Callee::Function));
        assert_eq!(Registers::arguments(2), one.and(two));
        assert_eq!(Registers(0b11_1111_1111).missing(), None);
        assert_eq!(Registers(0b01_1111_1111).missing(), Some(9));
    }
}
