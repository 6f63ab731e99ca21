"""Files from the network: fetched, resumed, verified, unpacked."""
