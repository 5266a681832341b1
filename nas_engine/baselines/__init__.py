"""Search methods without a learned policy, behind the protocol of `nas_engine.controllers.base`."""
