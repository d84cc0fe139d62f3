"""Groups that live for years in seconds: the real key servers and members on a virtual clock and a virtual network.

`scenario`: what is simulated. `network`: who reaches whom, and how well. `parties`: a key server or a member with its
crashes. `invariants`: what must hold, checked all the time. `world`: the event loop of one run. `faults`: what a seed
does to it. `sweep`: many seeds. `report`: what came out. docs/simulate.md is the user's page.

Everything that chance decides comes from one seed, so a run can be repeated exactly.
"""
