//! Shapes in the API's description that have no type of their own in the code.

/// An id as MongoDB writes it: `{"$oid": "…"}`.
#[derive(Debug, utoipa::ToSchema)]
#[allow(dead_code, reason = "only described, never made: the value is an ExtendedId")]
pub(in crate::root) struct ObjectId {
    #[schema(rename = "$oid", pattern = "^[0-9a-f]{24}$")]
    oid: String,
}
