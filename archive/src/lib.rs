//! layerstore-archive
