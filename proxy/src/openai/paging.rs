//! Lists of stored objects: which page a query asks for, and how a page looks. Pure.

use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::Error;

/// Names and values of a query, in their order.
pub(crate) type Pairs = Vec<(String, String)>;

/// Which page a query asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Paging {
    /// The id that it begins after.
    pub(crate) after: Option<String>,
    pub(crate) limit: usize,
    /// The oldest first.
    pub(crate) ascending: bool,
}

impl Paging {
    /// Everything, in order.
    pub(crate) fn all() -> Self {
        Self { after: None, limit: usize::MAX, ascending: true }
    }

    /// Reads the query of a list of items: 20 of them, the newest first, if it does not say otherwise.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn of_items(query: &[(String, String)]) -> Result<Self, Error> {
        Self::read(query, Self { after: None, limit: 20, ascending: false }, 100)
    }

    /// Reads `after`, `limit` (up to `max`) and `order`; what the query leaves open is as in `default`.
    ///
    /// # Errors
    /// Fails if a value is out of range.
    pub(crate) fn read(query: &[(String, String)], default: Self, max: usize) -> Result<Self, Error> {
        let mut paging = default;
        for (name, value) in query {
            match &**name {
                "after" => paging.after = Some(value.clone()),
                "limit" => {
                    paging.limit = value.parse().ok().filter(|limit| (1..=max).contains(limit)).ok_or_else(|| {
                        Error::invalid("limit", format!("Invalid 'limit': expected 1 to {max}, but got '{value}'."))
                    })?;
                }
                "order" if value == "asc" => paging.ascending = true,
                "order" if value == "desc" => paging.ascending = false,
                "order" => {
                    return Err(Error::invalid(
                        "order",
                        format!("Invalid value: '{value}'. Supported values are: 'asc' and 'desc'."),
                    ));
                }
                _ => {}
            }
        }
        Ok(paging)
    }
}

/// A page as clients see it.
pub(crate) fn page(data: &[impl Serialize], has_more: bool) -> Response {
    let data = json!(data);
    let id = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    let ids = data.as_array().map(|data| (id(data.first()), id(data.last())));
    let (first, last) = ids.unwrap_or_default();
    axum::Json(json!({"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more}))
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_within_their_bounds() {
        let read = |query: &[(&str, &str)]| {
            let query: Pairs = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Paging::read(&query, Paging { after: None, limit: 20, ascending: true }, 100)
        };
        assert_eq!(read(&[("other", "x")]).unwrap(), Paging { after: None, limit: 20, ascending: true });
        let all = read(&[("after", "a"), ("limit", "100"), ("order", "desc")]).unwrap();
        assert_eq!(all, Paging { after: Some("a".to_owned()), limit: 100, ascending: false });
        for wrong in [("limit", "0"), ("limit", "101"), ("limit", "x"), ("order", "up")] {
            assert_eq!(read(&[wrong]).unwrap_err().param(), Some(wrong.0), "{wrong:?}");
        }
    }
}
