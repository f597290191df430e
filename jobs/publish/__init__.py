"""`cai publish`: what a run made, put together for the Hub and pushed; the only job that takes a write token."""
