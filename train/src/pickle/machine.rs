//! The instructions of a pickle (protocols 2 to 4, as far as `torch.save` writes them) → nodes. Calls nothing.
//!
//! An instruction makes at most one node, and lengths are checked against what is left of the input, so memory is bounded by the
//! input's size. Source: Python's `pickletools`.

use super::globals::{ORDERED_DICT, REBUILD_PARAMETER, SETS, SIZE};
use super::node::{Id, Node, Pickle};
use super::{Content, PickleError, Result, op, refuse};
use std::collections::HashMap;

/// More objects than a checkpoint of any model has.
const MAX_NODES: usize = 1 << 23;
/// The newest protocol whose instructions are known here.
const NEWEST_PROTOCOL: u8 = 4;

/// Reads a pickle that holds what `content` may hold.
pub(super) fn run(input: &[u8], content: Content) -> Result<Pickle> {
    let (nodes, stack, marks, memo) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
    let mut machine = Machine { input, content, nodes, stack, marks, memo };
    loop {
        let instruction = machine.byte()?;
        if instruction == op::STOP {
            let root = machine.pop()?;
            return Ok(Pickle { nodes: machine.nodes, root });
        }
        machine.step(instruction)?;
    }
}

struct Machine<'a> {
    /// What is not read yet.
    input: &'a [u8],
    content: Content,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn step(&mut self, instruction: u8) -> Result<()> {
        match instruction {
            op::PROTO => self.protocol(),
            op::FRAME => self.take(8).map(drop),
            op::MARK => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::NONE => self.push(Node::None),
            op::NEWTRUE | op::NEWFALSE => self.push(Node::Bool(instruction == op::NEWTRUE)),
            op::BININT | op::BININT1 | op::BININT2 | op::LONG1 => self.integer(instruction),
            op::BINFLOAT => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Node::Float(value))
            }
            op::BINUNICODE | op::SHORT_BINUNICODE | op::BINUNICODE8 => self.text(instruction),
            op::EMPTY_TUPLE | op::TUPLE1 | op::TUPLE2 | op::TUPLE3 | op::TUPLE => self.tuple(instruction),
            op::EMPTY_LIST => self.push(Node::List(Vec::new())),
            op::APPEND | op::APPENDS => self.append(instruction),
            op::EMPTY_DICT => self.push(Node::Dict(Vec::new())),
            op::SETITEM | op::SETITEMS => self.set_items(instruction),
            op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.memoise(instruction),
            op::BINGET | op::LONG_BINGET => self.recall(instruction),
            op::GLOBAL | op::STACK_GLOBAL => self.global(instruction),
            op::REDUCE | op::NEWOBJ => self.call(),
            op::BUILD => self.build(),
            op::BINPERSID => {
                let id = self.pop()?;
                self.push(Node::Persistent(id))
            }
            other => refuse(format!("its pickle holds the instruction {other:#04x}, which tensors do not need")),
        }
    }

    fn protocol(&mut self) -> Result<()> {
        match self.byte()? {
            2..=NEWEST_PROTOCOL => Ok(()),
            other => refuse(format!("its pickle is of protocol {other}; 2 to {NEWEST_PROTOCOL} are read")),
        }
    }

    fn integer(&mut self, instruction: u8) -> Result<()> {
        let value = match instruction {
            op::BININT => i32::from_le_bytes(self.array()?).into(),
            op::BININT1 => self.byte()?.into(),
            op::BININT2 => u16::from_le_bytes(self.array()?).into(),
            _ => self.long()?,
        };
        self.push(Node::Int(value))
    }

    /// As many bytes as the first says, in two's complement.
    fn long(&mut self) -> Result<i64> {
        let length = self.byte()?;
        let bytes = self.take(length.into())?;
        let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        match wide.get_mut(..bytes.len()) {
            Some(low) => low.copy_from_slice(bytes),
            None => return refuse("its pickle holds an integer of more than 64 bits"),
        }
        Ok(i64::from_le_bytes(wide))
    }

    fn text(&mut self, instruction: u8) -> Result<()> {
        let length = match instruction {
            op::SHORT_BINUNICODE => self.byte()?.into(),
            op::BINUNICODE => u32::from_le_bytes(self.array()?).into(),
            _ => u64::from_le_bytes(self.array()?),
        };
        let text = utf8(self.take(length)?)?;
        self.push(Node::Text(text))
    }

    fn tuple(&mut self, instruction: u8) -> Result<()> {
        let items = match instruction {
            op::EMPTY_TUPLE => Vec::new(),
            op::TUPLE1 => self.pop_some::<1>()?.to_vec(),
            op::TUPLE2 => self.pop_some::<2>()?.to_vec(),
            op::TUPLE3 => self.pop_some::<3>()?.to_vec(),
            _ => self.pop_to_mark()?,
        };
        self.push(Node::Tuple(items))
    }

    fn append(&mut self, instruction: u8) -> Result<()> {
        let items = if instruction == op::APPEND { vec![self.pop()?] } else { self.pop_to_mark()? };
        match self.top()? {
            Node::List(list) => list.extend(items),
            _ => return refuse("its pickle appends to what is no list"),
        }
        Ok(())
    }

    fn set_items(&mut self, instruction: u8) -> Result<()> {
        let items = if instruction == op::SETITEM { self.pop_pair()?.to_vec() } else { self.pop_to_mark()? };
        let (pairs, rest) = items.as_chunks::<2>();
        match self.top()? {
            Node::Dict(entries) if rest.is_empty() => entries.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            _ => return refuse("its pickle sets items of what is no dict"),
        }
        Ok(())
    }

    fn memoise(&mut self, instruction: u8) -> Result<()> {
        let slot = match instruction {
            op::BINPUT => self.byte()?.into(),
            op::LONG_BINPUT => u32::from_le_bytes(self.array()?),
            _ => self.memo.len() as u32,
        };
        let id = *self.stack.last().ok_or_else(underflow)?;
        self.memo.insert(slot, id);
        Ok(())
    }

    fn recall(&mut self, instruction: u8) -> Result<()> {
        let slot = if instruction == op::BINGET { self.byte()?.into() } else { u32::from_le_bytes(self.array()?) };
        match self.memo.get(&slot) {
            Some(id) => self.stack.push(*id),
            None => return refuse("its pickle refers to an object that it does not hold"),
        }
        Ok(())
    }

    fn global(&mut self, instruction: u8) -> Result<()> {
        let [module, name] = match instruction {
            op::GLOBAL => [self.line()?, self.line()?],
            _ => {
                let [module, name] = self.pop_pair()?;
                [self.string(module)?, self.string(name)?]
            }
        };
        let name = format!("{module}.{name}");
        self.content.check(&name)?;
        self.push(Node::Global(name))
    }

    /// A call is noted, never made.
    fn call(&mut self) -> Result<()> {
        let [name, arguments] = self.pop_pair()?;
        let (Node::Global(name), Node::Tuple(arguments)) = (self.node(name), self.node(arguments)) else {
            return refuse("its pickle calls what is no name, or without a tuple of arguments");
        };
        match (name.as_str(), arguments.as_slice()) {
            // What these give is one of their arguments, as far as tensors are concerned.
            (REBUILD_PARAMETER, &[inner, ..]) | (SIZE, &[inner]) => self.push_again(inner),
            (set, &[items]) if SETS.contains(&set) => self.push_again(items),
            (ORDERED_DICT, []) => self.push(Node::Dict(Vec::new())),
            (name, arguments) => {
                let call = Node::Call { name: name.to_owned(), arguments: arguments.to_vec() };
                self.push(call)
            }
        }
    }

    /// Attributes of a dict, or of an object that is not a tensor, say nothing about tensors.
    fn build(&mut self) -> Result<()> {
        self.pop()?;
        match self.top()? {
            Node::Dict(_) | Node::Call { .. } => Ok(()),
            _ => refuse("its pickle gives attributes to what cannot have any"),
        }
    }

    fn push(&mut self, node: Node) -> Result<()> {
        if self.nodes.len() == MAX_NODES {
            return refuse(format!("its pickle holds more than {MAX_NODES} objects"));
        }
        self.stack.push(self.nodes.len() as Id);
        self.nodes.push(node);
        Ok(())
    }

    fn push_again(&mut self, id: Id) -> Result<()> {
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        let [id] = self.pop_some()?;
        Ok(id)
    }

    fn pop_pair(&mut self) -> Result<[Id; 2]> {
        self.pop_some()
    }

    /// The last objects on the stack, oldest first; never any from below a mark.
    fn pop_some<const COUNT: usize>(&mut self) -> Result<[Id; COUNT]> {
        let above = &self.stack[self.marks.last().copied().unwrap_or(0)..];
        let items = *above.last_chunk().ok_or_else(underflow)?;
        self.stack.truncate(self.stack.len() - COUNT);
        Ok(items)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Result<&mut Node> {
        let id = *self.stack.last().ok_or_else(underflow)?;
        self.nodes.get_mut(id as usize).ok_or_else(underflow)
    }

    fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    fn string(&self, id: Id) -> Result<String> {
        match self.node(id) {
            Node::Text(text) => Ok(text.clone()),
            _ => refuse("its pickle names something by what is no string"),
        }
    }

    fn byte(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH]> {
        let (array, rest) = self.input.split_first_chunk().ok_or_else(truncated)?;
        self.input = rest;
        Ok(*array)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let length = usize::try_from(length).map_err(|_| truncated())?;
        let (taken, rest) = self.input.split_at_checked(length).ok_or_else(truncated)?;
        self.input = rest;
        Ok(taken)
    }

    fn line(&mut self) -> Result<String> {
        let length = self.input.iter().position(|byte| *byte == b'\n').ok_or_else(truncated)?;
        let line = utf8(self.take(length as u64)?)?;
        self.byte()?;
        Ok(line)
    }
}

fn utf8(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| PickleError("its pickle holds text that is not UTF-8".into()))
}

fn truncated() -> PickleError {
    PickleError("its pickle ends in the middle; copy or download the file again".into())
}

fn underflow() -> PickleError {
    PickleError("its pickle takes more objects than it made".into())
}
