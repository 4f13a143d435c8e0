"""The test servers: FE asks and checks, IS relays, BE answers, each with every way of moving bytes that a flag can choose.

They speak HTTP/1.1, so that curl and nginx can take any place in a chain. `command` is what `odb serve` runs; below it lie
the roles (`origin`, `relay`, `client`), their connections (`link`, `outgoing`), and what the flags choose (`calls`, `memory`,
`waiting`).
"""
