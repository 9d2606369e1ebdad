"""`modelyard hub serve`: one source of repositories behind the faces of two hubs, so that their own SDKs and clients work against it."""
