// SPDX-License-Identifier: Apache-2.0

import {
  array,
  boolean,
  type Call,
  CniError,
  codes,
  type Decoded,
  decode,
  integer,
  type JsonObject,
  object,
  optional,
  parseCniArgs,
  string,
} from '#cni'
import type { PortVlans } from '#rtnetlink'
import { dnsKeys } from '../../lease.ts'
import { wantedMac } from '../../mac.ts'

const VLAN_MAX = 4094
/** Interface names: 15 bytes and a zero (linux/if.h). */
const NAME_BYTES_MAX = 15

const trunk = object({
  minID: optional(integer()),
  maxID: optional(integer()),
  id: optional(integer()),
})

const schema = object({
  /** Made where it is missing. */
  bridge: optional(string, 'cni0'),
  /** The node gets an address in the pods' network, by which they reach it. */
  isGateway: optional(boolean, false),
  /** The same, and the pods' default route leads there. */
  isDefaultGateway: optional(boolean, false),
  /** Addresses of the bridge that are in the way of the gateway's are removed. */
  forceAddress: optional(boolean, false),
  /** Hide pods behind the node's address when they leave their own subnet. */
  ipMasq: optional(boolean, false),
  /** Understood, and no matter: elements of one table do it in any case. */
  ipMasqBackend: optional(string),
  /** 0: the bridge's. */
  mtu: optional(integer(0, 65_535), 0),
  hairpinMode: optional(boolean, false),
  promiscMode: optional(boolean, false),
  vlan: optional(integer(), 0),
  vlanTrunk: optional(array(trunk)),
  /** The port stays in the bridge's default VLAN too. */
  preserveDefaultVlan: optional(boolean, false),
  /** What comes from a pod with another MAC than its own is dropped. */
  macspoofchk: optional(boolean, false),
  /** Ask the segment whether somebody else has a pod's IPv6 addresses. */
  enabledad: optional(boolean, false),
  /** The pod's link is made, and left to others. */
  disableContainerInterface: optional(boolean, false),
  /** Pods speak to the gateway only, not to each other. */
  portIsolation: optional(boolean, false),
  mac: optional(string, ''),
  args: optional(object({ cni: optional(object({ mac: optional(string, '') })) })),
  runtimeConfig: optional(object({ mac: optional(string, '') })),
  ipam: optional(object({ type: optional(string, '') })),
  dns: optional(dnsKeys),
})

export type Config = Omit<Decoded<typeof schema>, 'mac' | 'args' | 'runtimeConfig' | 'ipam' | 'vlanTrunk'> & {
  /** Given by whoever asks for the pod. */
  mac: Uint8Array | undefined
  /** The VLANs of the port, in order. None: the bridge need not know VLANs. */
  vlans: readonly PortVlans[]
  /** It takes addresses. */
  layer3: boolean
}

/** Reads a configuration. @throws {CniError} 7 naming the key, 4 for CNI_ARGS */
export function parseConfig(config: JsonObject, call: Pick<Call, 'args'>): Config {
  const { mac, args, runtimeConfig, ipam, vlanTrunk, ...keys } = decode(schema, config)
  const { MAC } = parseCniArgs(call.args, ['MAC'])
  const parsed: Config = {
    ...keys,
    isGateway: keys.isGateway || keys.isDefaultGateway,
    mac: wantedMac(runtimeConfig?.mac, args?.cni?.mac, MAC, mac),
    vlans: portVlans(keys.vlan, vlanTrunk),
    layer3: (ipam?.type ?? '') !== '',
  }
  refuseContradictions(parsed)
  return parsed
}

const invalid = (message: string, details?: string) =>
  new CniError(codes.invalidConfig, message, details === undefined ? {} : { details })

function refuseContradictions(config: Config): void {
  const { bridge, vlan, ipMasqBackend: backend } = config
  const bytes = Buffer.byteLength(bridge)
  if (bytes === 0 || bytes > NAME_BYTES_MAX || /[\s/:]/.test(bridge) || bridge === '.' || bridge === '..')
    throw invalid(`Cannot read network configuration: "bridge" is "${bridge}", which is no name of a link`)
  if (config.layer3 && config.disableContainerInterface)
    throw invalid(
      'cannot use IPAM when DisableContainerInterface flag is set',
      'addresses are for the interface that "disableContainerInterface" leaves alone: drop one of the two',
    )
  if (config.hairpinMode && config.promiscMode)
    throw invalid('cannot set hairpin mode and promiscuous mode at the same time')
  if (config.ipMasq && backend !== undefined && backend !== 'iptables' && backend !== 'nftables')
    throw invalid(
      `unknown ipmasq backend "${backend}"`,
      '"ipMasqBackend" is "iptables" or "nftables", and may be left out: both mean the same here',
    )
  if (config.isGateway && vlan !== 0 && bytes + `.${vlan}`.length > NAME_BYTES_MAX)
    throw invalid(
      `Cannot give VLAN ${vlan} of ${bridge} a gateway: the name ${bridge}.${vlan} is longer than ${NAME_BYTES_MAX} bytes`,
      'choose a shorter name in "bridge"',
    )
}

/**
 * The VLANs of a port as the reference has them: `vlan` untagged, the trunk's tagged; without `vlan` a trunk has VLAN 1
 * untagged. What is untagged is not in the trunk as well: the kernel would tag it.
 */
function portVlans(vlan: number, items: readonly Decoded<typeof trunk>[] | undefined): PortVlans[] {
  if (vlan < 0 || vlan > VLAN_MAX) throw invalid(`invalid VLAN ID ${vlan} (must be between 0 and ${VLAN_MAX})`)
  const tagged = new Set<number>()
  for (const { minID, maxID, id } of items ?? []) {
    if (minID !== undefined && maxID !== undefined) {
      if (!isVlan(minID)) throw invalid('incorrect trunk minID parameter', `"minID" is ${minID}, want 1 to ${VLAN_MAX}`)
      if (!isVlan(maxID)) throw invalid('incorrect trunk maxID parameter', `"maxID" is ${maxID}, want 1 to ${VLAN_MAX}`)
      if (maxID < minID)
        throw invalid('minID is greater than maxID in trunk parameter', `"minID" is ${minID}, "maxID" ${maxID}`)
      for (let each = minID; each <= maxID; each++) tagged.add(each)
    } else if (maxID !== undefined)
      throw invalid('minID and maxID should be configured simultaneously, minID is missing')
    else if (minID !== undefined) throw invalid('minID and maxID should be configured simultaneously, maxID is missing')
    if (id !== undefined) {
      if (!isVlan(id)) throw invalid('incorrect trunk id parameter', `"id" is ${id}, want 1 to ${VLAN_MAX}`)
      tagged.add(id)
    }
  }
  const untagged = vlan !== 0 ? vlan : tagged.size > 0 ? 1 : 0
  if (untagged === 0) return []
  tagged.delete(untagged)
  return [{ from: untagged, to: untagged, pvid: true, untagged: true }, ...rangesOf([...tagged].sort((a, b) => a - b))]
}

const isVlan = (id: number) => id >= 1 && id <= VLAN_MAX

/** Numbers in order as ranges: 1, 2, 3, 7 are 1-3 and 7. */
function rangesOf(numbers: readonly number[]): PortVlans[] {
  const ranges: PortVlans[] = []
  for (const number of numbers) {
    const last = ranges.at(-1)
    if (last !== undefined && last.to === number - 1) last.to = number
    else ranges.push({ from: number, to: number })
  }
  return ranges
}
