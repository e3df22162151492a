// SPDX-License-Identifier: Apache-2.0

import { formatIp, type Ip, isV4, tryParseIp } from '#base'
import { array, boolean, CniError, codes, decode, integer, type JsonObject, object, optional, string } from '#cni'
import { type Condition, fitsName, portProtocols } from '#host'
import { parseConditions, styleOf } from './conditions.ts'

/** Kubernetes uses the bits 14 and 15, Calico 20 to 31. */
const MARK_BIT = 13
const backends = ['iptables', 'nftables'] as const

const schema = object({
  /** Taken for compatibility, and for reading the conditions: it is always nf_tables that is asked. */
  backend: optional(string),
  /** Replace the source where an answer would not find its way back: the pod itself, its subnet, localhost. */
  snat: optional(boolean, true),
  /** Replace every source. */
  masqAll: optional(boolean, false),
  /** Which bit of the connection's mark says that the source is to be replaced. */
  markMasqBit: optional(integer()),
  /** A chain of iptables that marks instead. Taken for compatibility: ours marks itself. */
  externalSetMarkChain: optional(string),
  conditionsV4: optional(array(string)),
  conditionsV6: optional(array(string)),
  /** STATUS does not mind a foreign firewall that drops what is forwarded. */
  allowForwardDrop: optional(boolean, false),
  runtimeConfig: optional(
    object({
      portMappings: optional(
        array(
          object({
            hostPort: optional(integer(), 0),
            containerPort: optional(integer(), 0),
            protocol: optional(string, ''),
            hostIP: optional(string, ''),
          }),
        ),
      ),
    }),
  ),
})

/** A port of the node for a port of the pod, whatever the pod's addresses are. */
export type Mapping = {
  protocol: number
  hostPort: number
  podPort: number
  /** An address of the node, or any of a family. */
  host: Ip | Family
}
type Family = 'v4' | 'v6'
const families = ['v4', 'v6'] as const

export type Config = {
  snat: boolean
  masqAll: boolean
  markBit: number
  conditions: { v4: Condition[]; v6: Condition[] }
  allowForwardDrop: boolean
  mappings: Mapping[]
}

/** Reads a configuration. Sentences that upstream's plugin has are its own. @throws {CniError} 7 naming the key */
export function parseConfig(config: JsonObject): Config {
  const parsed = decode(schema, config)
  const { snat, masqAll, markMasqBit, externalSetMarkChain, allowForwardDrop } = parsed
  if (markMasqBit !== undefined && externalSetMarkChain !== undefined)
    throw invalid('Cannot specify externalSetMarkChain and markMasqBit')
  const markBit = markMasqBit ?? MARK_BIT
  if (markBit < 0 || markBit > 31) throw invalid('MasqMarkBit must be between 0 and 31')
  checkBackend(parsed)
  const mappings = (parsed.runtimeConfig?.portMappings ?? []).map(readMapping)
  return {
    ...{ snat, masqAll, markBit, allowForwardDrop, mappings: perFamily(mappings) },
    conditions: {
      v4: readConditions('v4', 'conditionsV4', parsed.conditionsV4),
      v6: readConditions('v6', 'conditionsV6', parsed.conditionsV6),
    },
  }
}

const invalid = (message: string, details?: string) => new CniError(codes.invalidConfig, message, { details })

type Options = { backend?: string | undefined; externalSetMarkChain?: string | undefined } & {
  [K in 'conditionsV4' | 'conditionsV6']?: string[] | undefined
}

/** An operator who names a back end means its language; without one either is understood, but not both at once. */
function checkBackend({ backend, externalSetMarkChain, conditionsV4, conditionsV6 }: Options): void {
  const used = { iptables: [] as string[], nftables: [] as string[] }
  if (externalSetMarkChain !== undefined) used.iptables.push('externalSetMarkChain')
  for (const [key, conditions] of Object.entries({ conditionsV4, conditionsV6 })) {
    const style = styleOf(conditions)
    if (style !== undefined) used[style].push(key)
  }
  if (backend !== undefined && !backends.some(each => each === backend))
    throw invalid(`unrecognized backend ${JSON.stringify(backend)}`)
  const chosen =
    (backend as (typeof backends)[number] | undefined) ?? (used.iptables.length > 0 ? 'iptables' : 'nftables')
  const other = chosen === 'iptables' ? 'nftables' : 'iptables'
  if (used[other].length > 0)
    throw invalid(
      `${chosen} backend was requested but configuration contains ${other}-specific options [${used[other].join(' ')}]`,
    )
}

function readConditions(version: 'v4' | 'v6', key: string, words: readonly string[] | undefined): Condition[] {
  const conditions = parseConditions(version, words ?? [])
  if (typeof conditions === 'string')
    throw invalid(
      `Cannot use "${key}": ${conditions}`,
      'understood are source and destination networks: "-s", "-d", "!" of iptables, or "ip saddr", "ip daddr", "!=" of nft',
    )
  if (!fitsName(conditions)) throw invalid(`Cannot use "${key}": too many conditions`)
  return conditions
}

type RawMapping = { hostPort: number; containerPort: number; protocol: string; hostIP: string }

function readMapping({ hostPort, containerPort, protocol, hostIP }: RawMapping) {
  if (containerPort < 1 || containerPort > 65_535) throw invalid(`Invalid container port number: ${containerPort}`)
  if (hostPort < 1 || hostPort > 65_535) throw invalid(`Invalid host port number: ${hostPort}`)
  const number = portProtocols[protocol.toLowerCase() as keyof typeof portProtocols]
  if (number === undefined)
    throw invalid(`Invalid protocol "${protocol}" of host port ${hostPort}: want tcp, udp or sctp`)
  return { protocol: number, hostPort, podPort: containerPort, host: readHost(hostIP, hostPort) }
}

/** An unspecified address stands for all of its family, none for all there are. */
function readHost(text: string, hostPort: number): Ip | Family | undefined {
  if (text === '') return undefined
  // Go's parser takes ::ffff:192.0.2.1 for the IPv4 address that it is.
  const parsed = tryParseIp(text)
  const ip = parsed === undefined ? undefined : tryParseIp(formatIp(parsed))
  if (ip === undefined) throw invalid(`Invalid host IP "${text}" of host port ${hostPort}`)
  if (ip.some(byte => byte !== 0)) return ip
  return isV4(ip) ? 'v4' : 'v6'
}

/** One for each family where any address is meant. The same twice is one; two that contradict each other are an error. */
function perFamily(mappings: readonly (Omit<Mapping, 'host'> & { host: Ip | Family | undefined })[]): Mapping[] {
  const found = new Map<string, Mapping>()
  for (const { host: wanted, ...mapping } of mappings) {
    for (const host of wanted === undefined ? families : [wanted]) {
      const key = `${mapping.protocol} ${mapping.hostPort} ${typeof host === 'string' ? host : formatIp(host)}`
      const earlier = found.get(key) ?? { ...mapping, host }
      if (earlier.podPort !== mapping.podPort)
        throw invalid(
          `Invalid host port number: ${mapping.hostPort} is mapped twice, to container ports ${earlier.podPort} and ${mapping.podPort}`,
        )
      found.set(key, earlier)
    }
  }
  return [...found.values()]
}

/** For messages: `8080/tcp`, `192.0.2.1:8080/tcp`. */
export function formatPort({
  protocol,
  hostPort,
  hostIp,
}: {
  protocol: number
  hostPort: number
  hostIp?: Ip | undefined
}) {
  const name = Object.entries(portProtocols).find(([, number]) => number === protocol)?.[0] ?? protocol
  const host = hostIp === undefined ? '' : isV4(hostIp) ? `${formatIp(hostIp)}:` : `[${formatIp(hostIp)}]:`
  return `${host}${hostPort}/${name}`
}
