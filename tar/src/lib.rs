//! layerstore-tar
