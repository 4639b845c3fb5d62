//! Finished responses that can be asked for, or gone on from, until newer ones take their room. Kept in memory alone.

use crate::chat::Message;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Most responses that are kept.
const MAX_RESPONSES: usize = 4096;
/// Most memory that they take together, in bytes of JSON.
const MAX_BYTES: usize = 64 << 20;

/// Who may see a response: whoever has the key that made it.
pub(in crate::api) type Owner = Option<[u8; 32]>;

/// A finished response.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) owner: Owner,
    /// As JSON text, which takes the room that it seems to take.
    pub(super) object: String,
    /// The input items of its own request, as JSON text.
    pub(super) input: Vec<String>,
    /// The conversation up to and including it, without instructions.
    pub(super) messages: Vec<Message>,
}

/// The responses of one server.
#[derive(Default)]
pub struct ResponseStore(Mutex<Shelf>);

#[derive(Default)]
struct Shelf {
    responses: HashMap<String, (usize, Arc<Kept>)>,
    /// Oldest first.
    order: VecDeque<String>,
    bytes: usize,
}

impl ResponseStore {
    pub(super) fn put(&self, id: &str, kept: Kept) {
        let bytes = kept.bytes();
        let mut shelf = self.0.lock();
        if bytes > MAX_BYTES {
            return;
        }
        shelf.bytes += bytes;
        shelf.responses.insert(id.to_owned(), (bytes, Arc::new(kept)));
        shelf.order.push_back(id.to_owned());
        while shelf.bytes > MAX_BYTES || shelf.order.len() > MAX_RESPONSES {
            let Some(oldest) = shelf.order.pop_front() else { break };
            shelf.remove(&oldest);
        }
    }

    /// The response, if it is there and the owner's.
    pub(super) fn get(&self, id: &str, owner: Owner) -> Option<Arc<Kept>> {
        let shelf = self.0.lock();
        shelf.responses.get(id).map(|(_, kept)| Arc::clone(kept)).filter(|kept| kept.owner == owner)
    }

    /// Removes the response; `false` = there is none of the owner's.
    pub(super) fn delete(&self, id: &str, owner: Owner) -> bool {
        let mut shelf = self.0.lock();
        let found = shelf.responses.get(id).is_some_and(|(_, kept)| kept.owner == owner);
        if found {
            shelf.remove(id);
            shelf.order.retain(|other| other != id);
        }
        found
    }
}

impl Shelf {
    fn remove(&mut self, id: &str) -> Option<Arc<Kept>> {
        let (bytes, kept) = self.responses.remove(id)?;
        self.bytes -= bytes;
        Some(kept)
    }
}

impl Kept {
    fn bytes(&self) -> usize {
        let text = |message: &Message| {
            let calls: usize =
                message.tool_calls.iter().map(|call| call.name.len() + call.arguments.to_string().len() * 4).sum();
            message.content.len() + message.reasoning.as_ref().map_or(0, String::len) + calls + 256
        };
        let input: usize = self.input.iter().map(|item| item.len() + 64).sum();
        self.object.len() + input + self.messages.iter().map(text).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(owner: Owner, size: usize) -> Kept {
        Kept { owner, object: "x".repeat(size), input: Vec::new(), messages: Vec::new() }
    }

    #[test]
    fn a_response_is_its_owners_alone() {
        let store = ResponseStore::default();
        store.put("a", kept(Some([1; 32]), 1));
        assert!(store.get("a", Some([1; 32])).is_some() && store.get("a", Some([2; 32])).is_none());
        assert!(store.get("a", None).is_none() && !store.delete("a", None));
        assert!(store.delete("a", Some([1; 32])) && store.get("a", Some([1; 32])).is_none());
    }

    #[test]
    fn the_oldest_make_room() {
        let store = ResponseStore::default();
        for index in 0..MAX_RESPONSES + 1 {
            store.put(&index.to_string(), kept(None, 1));
        }
        assert!(store.get("0", None).is_none() && store.get("1", None).is_some());
        for index in 0..5 {
            store.put(&format!("large{index}"), kept(None, MAX_BYTES / 4));
        }
        assert!(store.get("1", None).is_none() && store.get("large0", None).is_none());
        assert!(store.get("large4", None).is_some());
        assert!(store.0.lock().bytes <= MAX_BYTES);
    }
}
