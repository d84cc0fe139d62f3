"""The one room that calls the `cryptography` library: hashes, ciphers, Diffie-Hellman, signatures, certificates.

No primitive is written here. 3DES lives under `hazmat.decrepit` and finite-field Diffie-Hellman is announced to go,
so each has one seam (`cbc.py`, `diffie_hellman.py`) and pyproject.toml pins the range of releases.
"""

from labctl.crypto.cbc import BlockCipher, CbcStream, block_size, cbc_decrypt, cbc_encrypt
from labctl.crypto.certificate_path import MAX_CHAIN, Trust, parse_chain, verify_path
from labctl.crypto.certificates import (
    Certificate,
    CertificateError,
    DistinguishedName,
    PrivateKey,
    Refusal,
    RevocationList,
    belongs,
    load_private_key,
    name_of,
)
from labctl.crypto.diffie_hellman import (
    DiffieHellmanError,
    PrivateValue,
    generate_private_value,
    load_private_value,
    public_length,
    secret_length,
)
from labctl.crypto.ecdsa import EcdsaPrivateKey, EcdsaPublicKey
from labctl.crypto.hashes import HmacKey, digest, equal, hmac, size
from labctl.crypto.rsa import RsaPrivateKey, RsaPublicKey, SignatureError, generate_rsa_key

__all__ = [
    "MAX_CHAIN",
    "BlockCipher",
    "CbcStream",
    "Certificate",
    "CertificateError",
    "DiffieHellmanError",
    "DistinguishedName",
    "EcdsaPrivateKey",
    "EcdsaPublicKey",
    "HmacKey",
    "PrivateKey",
    "PrivateValue",
    "Refusal",
    "RevocationList",
    "RsaPrivateKey",
    "RsaPublicKey",
    "SignatureError",
    "Trust",
    "belongs",
    "block_size",
    "cbc_decrypt",
    "cbc_encrypt",
    "digest",
    "equal",
    "generate_private_value",
    "generate_rsa_key",
    "hmac",
    "load_private_key",
    "load_private_value",
    "name_of",
    "parse_chain",
    "public_length",
    "secret_length",
    "size",
    "verify_path",
]
