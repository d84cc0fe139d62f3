"""Certificates and RSA key pairs of a lab: made once, kept with it, changed by `labctl pki` and `labctl key`.

`state` is what is kept, `making` makes what a plan lacks, `credentials` turns it into what nodes are told, `orders` and
`key_pairs` are the verbs. Nothing here is imported by an `up` whose topology asks for no key pair.
"""
