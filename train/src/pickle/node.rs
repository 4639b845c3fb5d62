//! What a pickle describes: numbered nodes, and a view of one of them among the others.

use std::fmt;

/// The number of a node.
pub(super) type Id = u32;

/// One object, which refers to others by number.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// A tuple, and a `torch.Size`.
    Tuple(Vec<Id>),
    /// A list, and a set.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A name of Python's, `module.name`.
    Global(String),
    /// What calling `name` would give; nobody calls it.
    Call {
        name: String,
        arguments: Vec<Id>,
    },
    /// What `torch.save` keeps outside the pickle.
    Persistent(Id),
}

/// All nodes of a pickle and which of them is the whole.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
}

impl Pickle {
    pub(super) fn root(&self) -> Item<'_> {
        Item { pickle: self, id: self.root }
    }
}

/// One object of a pickle. Every question is answered by `None` where the object is of another kind.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    pickle: &'a Pickle,
    id: Id,
}

impl<'a> Item<'a> {
    pub(super) fn node(self) -> &'a Node {
        // Numbers are only ever made for nodes that exist.
        self.pickle.nodes.get(self.id as usize).unwrap_or(&Node::None)
    }

    fn other(self, id: Id) -> Self {
        Self { id, ..self }
    }

    /// Whether it is Python's `None`.
    pub fn is_none(self) -> bool {
        matches!(self.node(), Node::None)
    }

    /// The text of a string.
    pub fn text(self) -> Option<&'a str> {
        if let Node::Text(text) = self.node() { Some(text) } else { None }
    }

    /// The value of an integer, or of an enumeration of integers.
    pub fn int(self) -> Option<i64> {
        match self.node() {
            Node::Int(value) => Some(*value),
            Node::Call { arguments, .. } => match arguments.as_slice() {
                [argument] => match self.other(*argument).node() {
                    Node::Int(value) => Some(*value),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    /// The value of an integer that is no less than 0.
    pub fn size(self) -> Option<usize> {
        self.int().and_then(|value| value.try_into().ok())
    }

    /// The items of a tuple, list or set.
    pub fn elements(self) -> Option<Vec<Self>> {
        match self.node() {
            Node::Tuple(ids) | Node::List(ids) => Some(ids.iter().map(|id| self.other(*id)).collect()),
            _ => None,
        }
    }

    /// A shape: a tuple or list of sizes.
    pub fn sizes(self) -> Option<Vec<usize>> {
        self.elements()?.into_iter().map(Self::size).collect()
    }

    /// Keys and values of a dict, in their order.
    pub fn entries(self) -> Option<Vec<(Self, Self)>> {
        let Node::Dict(entries) = self.node() else { return None };
        Some(entries.iter().map(|(key, value)| (self.other(*key), self.other(*value))).collect())
    }

    /// The value of a key of a dict; of several, the last, as in Python.
    pub fn get(self, key: &str) -> Option<Self> {
        let found = self.entries()?.into_iter().rfind(|(name, _)| name.text() == Some(key));
        found.map(|(_, value)| value)
    }

    /// Name and arguments of a call.
    pub(super) fn call(self) -> Option<(&'a str, Vec<Self>)> {
        let Node::Call { name, arguments } = self.node() else { return None };
        Some((name, arguments.iter().map(|id| self.other(*id)).collect()))
    }

    /// What describes an object outside the pickle.
    pub(super) fn persistent(self) -> Option<Self> {
        if let Node::Persistent(id) = self.node() { Some(self.other(*id)) } else { None }
    }

    /// The name of a global.
    pub(super) fn global(self) -> Option<&'a str> {
        if let Node::Global(name) = self.node() { Some(name) } else { None }
    }
}

/// What kind of object it is, for error messages.
impl fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node() {
            Node::None => f.write_str("None"),
            Node::Bool(value) => write!(f, "{value}"),
            Node::Int(value) => write!(f, "{value}"),
            Node::Float(value) => write!(f, "{value}"),
            Node::Text(_) => f.write_str("a string"),
            Node::Tuple(_) => f.write_str("a tuple"),
            Node::List(_) => f.write_str("a list"),
            Node::Dict(_) => f.write_str("a dict"),
            Node::Global(name) => write!(f, "the name `{name}`"),
            Node::Call { name, .. } => write!(f, "an object of `{name}`"),
            Node::Persistent(_) => f.write_str("a storage"),
        }
    }
}

impl fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
