//! Just as much of Python's pickle as torch.save writes for tensors: nothing is executed, nothing is trusted.
//!
//! Values live in an arena and refer to each other by index, so a container that is filled after it was memoised is
//! one container, and no input makes a copy larger than itself. What a checkpoint does not need is [`Value::Other`].

use std::collections::HashMap;

/// The tensors that a pickle describes.
#[derive(Debug, Default)]
pub(super) struct Pickle {
    /// By the path of dict keys to each, joined by dots.
    pub(super) tensors: HashMap<String, Stored>,
    /// The root, where it is a tensor itself.
    pub(super) bare: Option<Stored>,
}

/// A contiguous tensor within a storage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    pub(super) storage: String,
    pub(super) element: Element,
    /// In elements.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    F16,
    Bf16,
}

impl Element {
    pub(super) fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A checkpoint is a dict of modules, each a dict of tensors. The bound also ends the walk through one that holds itself.
const DEEPEST: usize = 2;

/// Reads a pickle.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, String> {
    let mut machine = Machine { bytes, ..Machine::default() };
    let root = machine.run()?;
    let mut pickle = Pickle { tensors: HashMap::new(), bare: machine.tensor(root) };
    machine.collect(root, "", DEEPEST, &mut pickle.tensors);
    Ok(pickle)
}

/// A value's place in the arena.
type Id = usize;

enum Value {
    Mark,
    Integer(i64),
    Text(String),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Class(String),
    /// A persistent id: where a storage is.
    Persistent(Id),
    Call {
        class: Id,
        arguments: Id,
    },
    Other,
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    arena: Vec<Value>,
    stack: Vec<Id>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or("it ends too soon")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// An unsigned little-endian number of up to eight bytes.
    fn number(&mut self, width: usize) -> Result<u64, String> {
        Ok(self.take(width)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn text(&mut self, length: usize) -> Result<String, String> {
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| "it holds text that is not UTF-8".to_owned())
    }

    fn line(&mut self) -> Result<String, String> {
        let length = self.bytes[self.at..].iter().position(|byte| *byte == b'\n').ok_or("it ends too soon")?;
        let line = self.text(length)?;
        self.at += 1;
        Ok(line)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.arena.len());
        self.arena.push(value);
    }

    fn pop(&mut self) -> Result<Id, String> {
        self.stack.pop().ok_or_else(|| "its stack runs empty".to_owned())
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(|| "its stack runs empty".to_owned())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let is_mark = |id: &Id| matches!(self.arena[*id], Value::Mark);
        let mark = self.stack.iter().rposition(is_mark).ok_or("a mark is missing")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn push_tuple(&mut self, count: usize) -> Result<(), String> {
        let start = self.stack.len().checked_sub(count).ok_or("its stack runs empty")?;
        let items = self.stack.split_off(start);
        self.push(Value::Tuple(items));
        Ok(())
    }

    /// Sets the pairs in the dict on top of the stack; other containers matter to nobody.
    fn set(&mut self, items: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        if let Value::Dict(entries) = &mut self.arena[top] {
            entries.extend(items.as_chunks::<2>().0.iter().map(|[key, value]| (*key, *value)));
        }
        Ok(())
    }

    fn get(&mut self, width: usize) -> Result<(), String> {
        let key = self.number(width)? as u32;
        let id = *self.memo.get(&key).ok_or("it recalls what it did not remember")?;
        self.stack.push(id);
        Ok(())
    }

    fn run(&mut self) -> Result<Id, String> {
        loop {
            let operation = self.take(1)?[0];
            match operation {
                b'.' => return self.pop(),
                // PROTO, FRAME
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.push(Value::Mark),
                b'N' | 0x88 | 0x89 | b']' => self.push(Value::Other),
                b'}' => self.push(Value::Dict(Vec::new())),
                b')' => self.push(Value::Tuple(Vec::new())),
                // POP; APPEND (lists hold no tensors here); BUILD, which sets attributes (an OrderedDict's _metadata)
                b'0' | b'a' | b'b' => drop(self.pop()?),
                b'G' | b'J' | b'K' | b'M' | 0x8a => self.scalar(operation)?,
                b'X' | 0x8c => {
                    let length = self.number(if operation == b'X' { 4 } else { 1 })? as usize;
                    let text = self.text(length)?;
                    self.push(Value::Text(text));
                }
                b'c' => {
                    let class = format!("{}.{}", self.line()?, self.line()?);
                    self.push(Value::Class(class));
                }
                0x93 => self.class_from_stack()?,
                b'q' | b'r' | 0x94 => self.remember(operation)?,
                b'h' => self.get(1)?,
                b'j' => self.get(4)?,
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Tuple(items));
                }
                0x85..=0x87 => self.push_tuple(usize::from(operation - 0x84))?,
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set(&items)?;
                }
                // APPENDS
                b'e' => drop(self.pop_to_mark()?),
                b'Q' => {
                    let id = self.pop()?;
                    self.push(Value::Persistent(id));
                }
                b'R' | 0x81 => self.call()?,
                other => return Err(format!("it holds the operation {other:#04x}, which no tensor needs")),
            }
        }
    }

    fn scalar(&mut self, operation: u8) -> Result<(), String> {
        let value = match operation {
            b'J' => Value::Integer(i64::from((self.number(4)? as u32).cast_signed())),
            b'K' => Value::Integer(self.number(1)?.cast_signed()),
            b'M' => Value::Integer(self.number(2)?.cast_signed()),
            0x8a => {
                let width = self.number(1)? as usize;
                if width > 8 {
                    return Err("it holds a number of more than 64 bits".to_owned());
                }
                let unused = 64 - 8 * width as u32;
                // Two's complement: shift the sign up and back down.
                Value::Integer(
                    self.number(width)?.checked_shl(unused).map_or(0, |number| number.cast_signed() >> unused),
                )
            }
            _ => {
                self.take(8)?;
                Value::Other
            }
        };
        self.push(value);
        Ok(())
    }

    /// STACK_GLOBAL
    fn class_from_stack(&mut self) -> Result<(), String> {
        let name = self.pop()?;
        let module = self.pop()?;
        let (Value::Text(module), Value::Text(name)) = (&self.arena[module], &self.arena[name]) else {
            return Err("a class is not named by text".to_owned());
        };
        let class = format!("{module}.{name}");
        self.push(Value::Class(class));
        Ok(())
    }

    fn remember(&mut self, operation: u8) -> Result<(), String> {
        let key = match operation {
            b'q' => self.number(1)? as u32,
            b'r' => self.number(4)? as u32,
            _ => self.memo.len() as u32,
        };
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn call(&mut self) -> Result<(), String> {
        let arguments = self.pop()?;
        let class = self.pop()?;
        let value = match &self.arena[class] {
            Value::Class(name) if name == "collections.OrderedDict" => Value::Dict(Vec::new()),
            _ => Value::Call { class, arguments },
        };
        self.push(value);
        Ok(())
    }

    fn collect(&self, id: Id, path: &str, depth: usize, found: &mut HashMap<String, Stored>) {
        if let Some(stored) = self.tensor(id) {
            found.insert(path.to_owned(), stored);
        } else if let (Value::Dict(entries), Some(depth)) = (&self.arena[id], depth.checked_sub(1)) {
            for (key, value) in entries {
                if let Value::Text(key) = &self.arena[*key] {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    self.collect(*value, &path, depth, found);
                }
            }
        }
    }

    fn call_of(&self, id: Id) -> Option<(&str, &[Id])> {
        let Value::Call { class, arguments } = &self.arena[id] else { return None };
        match (&self.arena[*class], &self.arena[*arguments]) {
            (Value::Class(class), Value::Tuple(arguments)) => Some((class, arguments)),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let Value::Tuple(items) = &self.arena[id] else { return None };
        items.iter().map(|id| self.size(*id)).collect()
    }

    fn size(&self, id: Id) -> Option<usize> {
        let Value::Integer(integer) = &self.arena[id] else { return None };
        usize::try_from(*integer).ok()
    }

    /// What `_rebuild_tensor_v2(storage, offset, size, stride, …)` describes, where it is contiguous floats.
    fn tensor(&self, id: Id) -> Option<Stored> {
        let (mut class, mut arguments) = self.call_of(id)?;
        if class == "torch._utils._rebuild_parameter" {
            (class, arguments) = self.call_of(*arguments.first()?)?;
        }
        let [storage, offset, shape, strides, ..] = arguments else { return None };
        if class != "torch._utils._rebuild_tensor_v2" {
            return None;
        }
        let Value::Persistent(location) = &self.arena[*storage] else { return None };
        let Value::Tuple(location) = &self.arena[*location] else { return None };
        // ('storage', class, key, device, elements)
        let [_, class, key, ..] = location.as_slice() else { return None };
        let (Value::Class(class), Value::Text(key)) = (&self.arena[*class], &self.arena[*key]) else { return None };
        let element = match class.as_str() {
            "torch.FloatStorage" => Element::F32,
            "torch.HalfStorage" => Element::F16,
            "torch.BFloat16Storage" => Element::Bf16,
            _ => return None,
        };
        let shape = self.sizes(*shape)?;
        let contiguous = is_contiguous(&shape, &self.sizes(*strides)?);
        contiguous.then_some(Stored { storage: key.clone(), element, offset: self.size(*offset)?, shape })
    }
}

fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1_usize;
    let fits = shape.iter().zip(strides).rev().all(|(size, stride)| {
        let fits = *size == 1 || *stride == expected;
        expected = expected.saturating_mul(*size);
        fits
    });
    fits && shape.len() == strides.len()
}
