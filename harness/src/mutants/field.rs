//! A request field, which a mutant can drop.

use super::message::Head;

/// A field of the requests to one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    /// As in `POST /v1/embeddings`.
    pub endpoint: String,
    /// The field's name.
    pub name: String,
}

impl Field {
    /// The field of this name in this request.
    pub(super) fn of(request: &Head, name: String) -> Self {
        Self { endpoint: endpoint(request), name }
    }

    /// Whether it is one of this request's endpoint.
    pub(super) fn is_at(&self, request: &Head) -> bool {
        self.endpoint == endpoint(request)
    }
}

fn endpoint(request: &Head) -> String {
    format!("{} {}", request.method(), request.target())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_one_of_its_endpoint_alone() {
        let head = |first: &str| Head { first: first.to_owned(), headers: Vec::new() };
        let field = Field::of(&head("POST /v1/embeddings?a=b HTTP/1.1"), "user".to_owned());
        assert_eq!(field.endpoint, "POST /v1/embeddings");
        assert!(
            field.is_at(&head("POST /v1/embeddings HTTP/1.1")) && !field.is_at(&head("GET /v1/embeddings HTTP/1.1"))
        );
    }
}
