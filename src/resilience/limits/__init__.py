"""Rate limits and holds that several processes share through Redis or Valkey: behind `shared`."""
