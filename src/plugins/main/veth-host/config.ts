// SPDX-License-Identifier: Apache-2.0

import { type Prefix, tryParsePrefix } from '#base'
import {
  array,
  boolean,
  type Call,
  CniError,
  checked,
  codes,
  type Decoded,
  type Decoder,
  decode,
  integer,
  type JsonObject,
  object,
  optional,
  parsed,
  string,
} from '#cni'
import { DEFAULT_MARK } from '#host'

const network = parsed(tryParsePrefix, 'NETWORK/LENGTH')
const networks: Decoder<Prefix[]> = (value, path) =>
  typeof value === 'string' ? [network(value, path)] : array(network)(value, path)

/** A link's name as the kernel takes it (dev_valid_name). */
const ifName = checked(string, name =>
  /^[^\s/:]{1,15}$/.test(name) && name !== '.' && name !== '..' && Buffer.byteLength(name) <= 15
    ? undefined
    : `is "${name}", want the name of an interface, at most 15 bytes`,
)

/** kube-proxy's: what it masquerades, what the kubelet drops. */
const KUBERNETES_MARKS = [0x4000, 0x8000]

/** One bit, as a number or as text: JSON knows no hexadecimal numbers. */
const mark: Decoder<number> = (value, path) =>
  checked(
    typeof value === 'string' ? parsed(tryParseNumber, 'a number, for example "0x2000"') : integer(1, 0xffffffff),
    bits => {
      if ((bits & (bits - 1)) !== 0 || bits === 0) return `is 0x${bits.toString(16)}, want a single bit`
      return KUBERNETES_MARKS.includes(bits) ? `is 0x${bits.toString(16)}, which is Kubernetes' own` : undefined
    },
  )(value, path)
const tryParseNumber = (text: string): number | undefined =>
  /^(0x[0-9a-f]{1,8}|[0-9]{1,10})$/i.test(text) && Number(text) <= 0xffffffff ? Number(text) : undefined

/** `30000:32767`, and with a hyphen as kube-proxy writes it. */
const portRange = parsed(text => {
  const match = /^([0-9]{1,5})(?:[:-]([0-9]{1,5}))?$/.exec(text)
  const [from, to] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])]
  return match !== null && from >= 1 && from <= to && to <= 65_535 ? { from, to } : undefined
}, 'FROM:TO, for example "30000:32767"')

const schema = object({
  /** The node's NIC whose addresses are the pods' way to the node. Default: that of the default route. */
  hostInterface: optional(string, ''),
  /** Name of the veth in the pod. */
  containerInterface: optional(ifName, 'veth0'),
  /** Networks that the pod reaches by the node. */
  serviceCidr: optional(networks),
  /** The pod's default route goes by the node, not by its own NIC. */
  isDefaultGateway: optional(boolean, false),
  /** What the node sends on for a pod has the node's address. */
  ipMasq: optional(boolean, true),
  /** 0: the smaller of the host interface's and of the pod's own NIC. */
  mtu: optional(integer(0, 65_535), 0),
  /** The first routing table that pods may have. */
  routeTableStart: optional(integer(1, 0xffff), 256),
  /** The bit of packets' marks that is ours. */
  nodePortMark: optional(mark, DEFAULT_MARK),
  /** Read, and not needed: answers are told by connection tracking, whatever the port. */
  nodePorts: optional(portRange),
  /** Let pods reach the metadata service of the node's cloud by the node. */
  allowMetadata: optional(boolean, false),
  /** STATUS and CHECK do not mind a foreign firewall that drops what is forwarded. */
  allowForwardDrop: optional(boolean, false),
})

export type Config = Omit<Decoded<typeof schema>, 'serviceCidr' | 'nodePorts'> & { services: Prefix[] }

/** Reads a configuration. @throws {CniError} 7 naming the key */
export function parseConfig(config: JsonObject, call: Pick<Call, 'ifName'>): Config {
  const { serviceCidr, nodePorts: _, ...parsed } = decode(schema, config)
  if (serviceCidr === undefined && !parsed.isDefaultGateway)
    throw new CniError(codes.invalidConfig, 'Cannot attach without a network to reach: "serviceCidr" is missing', {
      details: 'name the service network of the cluster, for example "10.96.0.0/12"; or set "isDefaultGateway": true',
    })
  if (parsed.containerInterface === call.ifName)
    throw new CniError(
      codes.invalidConfig,
      `Cannot read network configuration: "containerInterface" is "${call.ifName}", which is the pod's own NIC`,
    )
  return { ...parsed, services: serviceCidr ?? [] }
}
