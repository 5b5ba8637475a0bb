//! How a vector of conversations is checked: `client.json` is the body that creates one, `answer.json` the object and
//! the list of its items.

use async_openai::types::responses::{ConversationItemList, ConversationResource};
use serde_json::json;

use super::made;
use crate::{
    openai::{
        paging::Paging,
        request::json::Json,
        responses::{items, stored::Fetched},
    },
    receipt::Receipt,
    vectors::{Case, stamp},
};

pub(crate) fn check(case: &mut Case) {
    let json = Json::of_test(case.input("client.json").unwrap());
    let (stamp, mut receipt) = (stamp("conv_"), Receipt::default());
    let stored = match made(&json, &Fetched::default(), &stamp, None, &mut receipt) {
        Ok(stored) => stored,
        Err(error) => return case.refusal(&error),
    };
    if !receipt.is_empty() {
        case.output("receipt.txt", &format!("{receipt}\n"));
    }
    let object = stored.object(&stamp.id);
    let listed: Vec<_> = stored.items().iter().collect();
    let page = json!(items::page(&listed, &Paging::all()).unwrap());
    case.read_by::<ConversationResource>(&object.to_string());
    case.read_by::<ConversationItemList>(&page.to_string());
    case.json("answer.json", &json!({"conversation": object, "items": page}));
}
