use layerstore_testkit::tree::Difference;
pub(crate) fn refused(_: &str) -> Option<&'static str> {
    None
}
pub(crate) fn gnu_complains(_: &str) -> Option<&'static str> {
    None
}
pub(crate) fn unlike_gnu(_: &[u8], _: &[Difference]) -> Option<&'static str> {
    None
}
