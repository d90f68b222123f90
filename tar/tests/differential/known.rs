use crate::view::View;

pub(crate) fn refused(_error: &str) -> Option<&'static str> {
    None
}
pub(crate) fn gnu_complains(_error: &str) -> Option<&'static str> {
    None
}
pub(crate) fn unlike_gnu(_archive: &[u8], _fields: &[&str], _ours: &[View], _gnu: &[View]) -> Option<&'static str> {
    None
}
pub(crate) fn unlike_python(_archive: &[u8], _fields: &[&str]) -> Option<&'static str> {
    None
}
pub(crate) fn python_complains(_archive: &[u8]) -> Option<&'static str> {
    None
}
