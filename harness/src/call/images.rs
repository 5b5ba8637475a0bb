//! Images with the OpenAI client: made of words, and made of other images, which are uploaded.
#![expect(deprecated, reason = "OpenAI gives variations up; servers that have them are checked all the same")]

use async_openai::types::images::{
    CreateImageEditRequest, CreateImageVariationRequest, ImageEditInput, ImageInput, ImageModel, ImageSize,
    ImagesResponse,
};
use serde_json::Value;

use super::{
    Understood, decoded,
    typed::{OpenAI, understand},
};
use crate::scenario::call::{Edit, Variation};

/// `POST /v1/images/generations`.
pub(super) async fn generate(client: &OpenAI, request: Value, understood: &Understood) {
    understand::<ImagesResponse>(client.images().generate_byot(request).await, understood);
}

/// `POST /v1/images/edits`.
pub(super) async fn edit(client: &OpenAI, edit: &Edit, understood: &Understood) {
    let Edit { model, prompt, base64, filename, n, size } = edit.clone();
    let request = CreateImageEditRequest {
        image: ImageEditInput::Image(ImageInput::from_vec_u8(filename, decoded(&base64))),
        prompt,
        model: ImageModel::Other(model),
        n,
        size: size.map(ImageSize::Other),
        ..CreateImageEditRequest::default()
    };
    understand::<ImagesResponse>(client.images().edit_byot(request).await, understood);
}

/// `POST /v1/images/variations`.
pub(super) async fn variation(client: &OpenAI, variation: &Variation, understood: &Understood) {
    let Variation { model, base64, filename, n } = variation.clone();
    let request = CreateImageVariationRequest {
        image: ImageInput::from_vec_u8(filename, decoded(&base64)),
        model: model.map(ImageModel::Other),
        n,
        ..CreateImageVariationRequest::default()
    };
    understand::<ImagesResponse>(client.images().create_variation_byot(request).await, understood);
}
