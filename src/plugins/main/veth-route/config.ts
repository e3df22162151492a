// SPDX-License-Identifier: Apache-2.0

import { boolean, type Decoded, decode, integer, object, oncePerConfig, optional, string } from '#cni'
import { dnsKeys } from '../../lease.ts'

/** IPv4 needs 68 bytes (RFC 791), a veth takes up to 65535. */
const mtu = integer(0, 65_535)

const schema = object({
  /** The node's NIC by which pods are reached; its MTU is theirs. Default: that of the default route. */
  hostInterface: optional(string, ''),
  /** 0: the host interface's. */
  mtu: optional(mtu, 0),
  /** Hide pods behind the node's address when they leave their own subnet. */
  ipMasq: optional(boolean, false),
  /** Answer ARP and neighbour discovery for pods on the host interface. */
  proxyNeighbour: optional(boolean, true),
  /** Let pods reach the metadata service of the node's cloud. */
  allowMetadata: optional(boolean, false),
  /** STATUS does not mind a foreign firewall that drops what is forwarded. */
  allowForwardDrop: optional(boolean, false),
  dns: optional(dnsKeys),
})

export type Config = Decoded<typeof schema>

/** Reads a configuration. @throws {CniError} 7 naming the key */
export const parseConfig = oncePerConfig((config): Config => decode(schema, config))
