//! layerstore-store
