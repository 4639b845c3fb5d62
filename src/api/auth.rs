//! Who may use a route. Every route says what it needs, so that a new one cannot be open by oversight.
//!
//! Keys are compared by their SHA-256 in constant time, always with every key. No part of a key is logged or sent back.

use super::AppState;
use super::error::{ApiError, Kind};
use super::layers::in_the_paths_shape;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tokio::sync::Semaphore;

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: probes, and pages that hold no data.
    Open,
    /// Nothing, unless the operator closes it: metrics.
    Metrics,
    /// An API key, if there are any.
    Inference,
    /// An admin key, if there are any keys.
    Admin,
}

/// The keys of a server.
#[derive(Default)]
pub struct Keys {
    inference: Vec<Key>,
    admin: Vec<Key>,
    metrics_closed: bool,
}

struct Key {
    digest: [u8; 32],
    /// Requests that this key may have under way.
    places: Option<Arc<Semaphore>>,
}

/// Whose request it is; an extension of every request that was let in.
#[derive(Clone, Default)]
pub(super) struct Caller {
    /// The key's digest; `None` = the server has no keys.
    pub(super) owner: Option<[u8; 32]>,
    pub(super) places: Option<Arc<Semaphore>>,
}

/// Which list a key stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Nobody,
    User(usize),
    Admin(usize),
}

impl Keys {
    /// `per_key` = most requests under way with one API key.
    pub fn new(inference: &[String], admin: &[String], per_key: Option<usize>, metrics_closed: bool) -> Self {
        let key = |text: &String, most: Option<usize>| Key {
            digest: Sha256::digest(text.as_bytes()).into(),
            places: most.map(|most| Arc::new(Semaphore::new(most))),
        };
        Self {
            inference: inference.iter().map(|text| key(text, per_key)).collect(),
            admin: admin.iter().map(|text| key(text, None)).collect(),
            metrics_closed,
        }
    }

    fn admit(&self, access: Access, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let has_keys = !self.inference.is_empty() || !self.admin.is_empty();
        let open = match access {
            Access::Open => true,
            Access::Metrics => !self.metrics_closed,
            Access::Inference => self.inference.is_empty(),
            Access::Admin => !has_keys,
        };
        let role = self.role(bearer(headers).unwrap_or_default());
        match role {
            Role::Admin(index) => Ok(self.admin[index].caller()),
            Role::User(index) if open || access != Access::Admin => Ok(self.inference[index].caller()),
            Role::User(_) => Err(ApiError::new(Kind::InsufficientPermissions, "This needs an admin key.")),
            Role::Nobody if open => Ok(Caller::default()),
            Role::Nobody => Err(no_key(headers)),
        }
    }

    /// Looks at every key, whichever fits.
    fn role(&self, given: &[u8]) -> Role {
        let digest: [u8; 32] = Sha256::digest(given).into();
        match (find(&self.admin, &digest), find(&self.inference, &digest)) {
            (Some(index), _) => Role::Admin(index),
            (None, Some(index)) => Role::User(index),
            (None, None) => Role::Nobody,
        }
    }
}

impl Key {
    fn caller(&self) -> Caller {
        Caller { owner: Some(self.digest), places: self.places.clone() }
    }
}

/// The place of a key in a list; takes as long wherever it stands.
fn find(keys: &[Key], digest: &[u8; 32]) -> Option<usize> {
    let (mut found, mut place) = (Choice::from(0), 0_u64);
    for (index, key) in keys.iter().enumerate() {
        let same = key.digest.ct_eq(digest);
        place.conditional_assign(&(index as u64), same);
        found |= same;
    }
    bool::from(found).then_some(place as usize)
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
}

fn no_key(headers: &HeaderMap) -> ApiError {
    let message = if headers.contains_key(header::AUTHORIZATION) {
        "Incorrect API key provided."
    } else {
        "You didn't provide an API key. Send it in the header `Authorization: Bearer KEY`."
    };
    ApiError::new(Kind::InvalidApiKey, message)
}

/// A page of another site has made the request: browsers send simple ones without asking first.
fn is_foreign(headers: &HeaderMap, allowed: &[HeaderValue]) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok()).zip(origin.to_str().ok());
    let is_own = own.is_some_and(|(host, origin)| origin.split_once("://").is_some_and(|(_, place)| place == host));
    !is_own && !allowed.contains(origin)
}

fn foreign_page() -> ApiError {
    let message = "Pages of other sites may not change adapters; --cors-origin allows those that it names.";
    ApiError::new(Kind::InsufficientPermissions, message)
}

/// Lets a request through to its handler, or not.
pub(super) async fn check(
    State((state, access)): State<(Arc<AppState>, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    let foreign = access == Access::Admin && is_foreign(request.headers(), &state.origins);
    let admitted = if foreign { Err(foreign_page()) } else { state.keys.admit(access, request.headers()) };
    match admitted {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => in_the_paths_shape(request.uri().path(), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(&["user-1".to_owned(), "user-2".to_owned()], &["root".to_owned()], Some(1), false)
    }

    fn admit(keys: &Keys, access: Access, key: &str) -> Option<Kind> {
        let mut headers = HeaderMap::new();
        if !key.is_empty() {
            headers.insert(header::AUTHORIZATION, format!("Bearer {key}").parse().unwrap());
        }
        keys.admit(access, &headers).err().map(|error| error.kind())
    }

    #[test]
    fn each_key_opens_what_it_is_for() {
        let (keys, wrong) = (keys(), Some(Kind::InvalidApiKey));
        for (key, inference, admin) in [
            ("", wrong, wrong),
            ("user", wrong, wrong),
            ("user-11", wrong, wrong),
            ("user-1", None, Some(Kind::InsufficientPermissions)),
            ("user-2", None, Some(Kind::InsufficientPermissions)),
            ("root", None, None),
        ] {
            assert_eq!(admit(&keys, Access::Inference, key), inference, "{key}");
            assert_eq!(admit(&keys, Access::Admin, key), admin, "{key}");
            assert_eq!(admit(&keys, Access::Open, key), None, "{key}");
            assert_eq!(admit(&keys, Access::Metrics, key), None, "{key}");
        }
    }

    #[test]
    fn a_server_without_keys_is_open_and_one_with_an_admin_key_alone_guards_its_adapters() {
        assert_eq!(admit(&Keys::default(), Access::Admin, ""), None);
        let guarded = Keys::new(&[], &["root".to_owned()], None, true);
        assert_eq!(admit(&guarded, Access::Inference, ""), None);
        assert_eq!(admit(&guarded, Access::Admin, ""), Some(Kind::InvalidApiKey));
        assert_eq!(admit(&guarded, Access::Metrics, ""), Some(Kind::InvalidApiKey));
        let users_only = Keys::new(&["user".to_owned()], &[], None, false);
        assert_eq!(admit(&users_only, Access::Admin, "user"), Some(Kind::InsufficientPermissions));
    }

    #[test]
    fn every_key_is_compared_whichever_fits() {
        let keys = keys();
        let role = |key: &str| keys.role(key.as_bytes());
        assert!(role("user-1") == Role::User(0) && role("user-2") == Role::User(1) && role("root") == Role::Admin(0));
        assert!(role("") == Role::Nobody);
    }

    /// Welch's t of how long two wrong keys take.
    fn welch(samples: &[[f64; 2]]) -> f64 {
        let count = samples.len() as f64;
        let of = |side: usize| {
            let mean = samples.iter().map(|pair| pair[side]).sum::<f64>() / count;
            let variance = samples.iter().map(|pair| (pair[side] - mean).powi(2)).sum::<f64>() / (count - 1.0);
            (mean, variance / count)
        };
        let ((first, first_error), (last, last_error)) = (of(0), of(1));
        (first - last) / (first_error + last_error).sqrt()
    }

    #[test]
    fn a_wrong_first_letter_takes_as_long_as_a_wrong_last_one() {
        let key = "k".repeat(40);
        let keys = Keys::new(&[key.clone(), "other".to_owned()], &["root".to_owned()], None, false);
        let wrong = [format!("x{}", &key[1..]), format!("{}x", &key[1..])];
        let time = |key: &str| {
            let started = std::time::Instant::now();
            std::hint::black_box(keys.role(std::hint::black_box(key.as_bytes())) == Role::Nobody);
            // An interruption says nothing about the key.
            (started.elapsed().as_nanos() as f64).min(20_000.0)
        };
        let measure = || {
            let pair = |index: usize| {
                if index.is_multiple_of(2) {
                    [time(&wrong[0]), time(&wrong[1])]
                } else {
                    let last = time(&wrong[1]);
                    [time(&wrong[0]), last]
                }
            };
            welch(&(0..20_000).map(pair).collect::<Vec<_>>()).abs()
        };
        // Busy machines make outliers; a real difference shows in every run.
        let found = (0..3).map(|_| measure()).fold(f64::INFINITY, f64::min);
        assert!(found < 4.5, "t = {found}");
    }
}
