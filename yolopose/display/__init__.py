"""Pictures and sessions for notebooks. Nothing is computed here that a result depends on."""
