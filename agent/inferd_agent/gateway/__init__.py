"""Many clients, many devices: Envoy balances, we tell it who is there and whom to trust. `inferd gateway`.

Nothing here carries a request. The extra `gateway` brings Envoy's binary.
"""
