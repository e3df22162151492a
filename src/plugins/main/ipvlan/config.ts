// SPDX-License-Identifier: Apache-2.0

import {
  boolean,
  type Call,
  CniError,
  codes,
  decode,
  integer,
  type JsonObject,
  object,
  optional,
  type Result,
  string,
} from '#cni'
import { ipvlanFlags, ipvlanModes } from '#rtnetlink'
import type { ChildConfig } from '../../child-link.ts'
import { dnsKeys, resultDns } from '../../lease.ts'

const schema = object({
  /** The link that the container's link is on. Default: the one of an earlier plugin, or that of the default route. */
  master: optional(string, ''),
  mode: optional(string, ''),
  /** Whether links of one master may speak with each other. */
  flag: optional(string, ''),
  /** 0: the master's. */
  mtu: optional(integer(), 0),
  /** The master is in the container. */
  linkInContainer: optional(boolean, false),
  /** Answer ARP and neighbour discovery on the master for containers in mode l3 and l3s, whose links do not. */
  proxyNeighbour: optional(boolean, true),
  ipam: optional(object({ type: optional(string, '') })),
  dns: optional(dnsKeys),
})

/** Reads a configuration. @throws {CniError} 7 naming the key */
export function parseConfig(config: JsonObject, call: Call): ChildConfig {
  const { mode, flag, mtu, linkInContainer, proxyNeighbour, ipam, dns, ...rest } = decode(schema, config)
  const data = {
    mode: oneOf(ipvlanModes, 'mode', mode, 'l2'),
    flags: oneOf(ipvlanFlags, 'flag', flag, 'bridge'),
  }
  const earlier = call.command === 'ADD' ? call.prevResult : undefined
  const chained = rest.master === '' && earlier !== undefined ? masterOf(earlier) : undefined
  const masterInPod = linkInContainer || (chained?.sandbox ?? '') !== ''
  return {
    master: chained?.name ?? rest.master,
    masterInPod,
    needsAnswers: proxyNeighbour && !masterInPod && data.mode !== ipvlanModes.l2,
    ...{ mtu, info: { kind: 'ipvlan', data }, mac: undefined, sharesMac: true, layer2: false },
    inherited: (ipam?.type ?? '') === '' ? earlier : undefined,
    dns: resultDns(dns),
  }
}

function oneOf<K extends string>(
  words: Readonly<Record<K, number>>,
  key: string,
  text: string,
  usual: NoInfer<K>,
): number {
  const found = Object.entries<number>(words).find(([word]) => word === (text === '' ? usual : text))
  if (found !== undefined) return found[1]
  throw new CniError(codes.invalidConfig, `unknown ipvlan ${key}: "${text}"`, {
    details: `"${key}" is one of ${Object.keys(words).join(', ')}`,
  })
}

/** The link that an earlier plugin of the chain made. @throws {CniError} 7 where it is not one alone */
function masterOf({ interfaces = [] }: Result): NonNullable<Result['interfaces']>[number] {
  const [only, ...more] = interfaces
  if (only !== undefined && only.name !== '' && more.length === 0) return only
  throw new CniError(codes.invalidConfig, 'chained master failure. PrevResult lacks a single named interface', {
    details: 'name the link in "master"',
  })
}
