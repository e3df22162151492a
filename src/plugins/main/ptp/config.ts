// SPDX-License-Identifier: Apache-2.0

import {
  boolean,
  CniError,
  codes,
  type Decoded,
  decode,
  integer,
  type JsonObject,
  object,
  optional,
  string,
} from '#cni'
import { dnsKeys } from '../../lease.ts'

const schema = object({
  /** Hide pods behind the node's address when they leave their own subnet. */
  ipMasq: optional(boolean, false),
  /** Understood, and no matter: elements of one table do it in any case. */
  ipMasqBackend: optional(string),
  /** 0: 1500 bytes, the kernel's own for a veth, which takes up to 65535. */
  mtu: optional(integer(0, 65_535), 0),
  dns: optional(dnsKeys),
})

export type Config = Decoded<typeof schema>

/** Reads a configuration. @throws {CniError} 7 naming the key */
export function parseConfig(config: JsonObject): Config {
  const parsed = decode(schema, config)
  const { ipMasq, ipMasqBackend: backend } = parsed
  if (ipMasq && backend !== undefined && backend !== 'iptables' && backend !== 'nftables')
    throw new CniError(codes.invalidConfig, `unknown ipmasq backend "${backend}"`, {
      details: '"ipMasqBackend" is "iptables" or "nftables", and may be left out: both mean the same here',
    })
  return parsed
}
