"""A circuit that several processes share through Redis or Valkey: the parts behind `shared`."""
