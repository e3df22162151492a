// SPDX-License-Identifier: Apache-2.0

import { isAbsolute } from 'node:path'
import { formatIp, formatPrefix, networkOf, parsePrefix, tryParseIp, tryParsePrefix } from '#base'
import {
  anyObject,
  array,
  boolean,
  CniError,
  checked,
  closedObject,
  codes,
  type Decoded,
  decode,
  integer,
  type JsonObject,
  object,
  oncePerConfig,
  oneOf,
  optional,
  parsed,
  type Route,
  record,
  string,
} from '#cni'
import { confKeys } from '#openstack'
import { permission } from './choice-policy.ts'
import type { CloudReference } from './sessions.ts'

const word = checked(string, text => (text.trim() === '' ? 'is empty' : undefined))

/** A relative one would be another directory for each program that calls. */
const absolutePath = checked(string, text => (isAbsolute(text) ? undefined : `is "${text}", want an absolute path`))

/** Part of descriptions and tags, where Neutron takes 255 characters and a comma separates. */
const label = checked(string, text =>
  /^[\w.:-]{1,63}$/.test(text) ? undefined : 'want 1 to 63 of A-Z a-z 0-9 _ . : -',
)

const neutronConf = closedObject({
  /** How a pod gets its address. */
  mode: optional(oneOf('mix', 'separate', 'mix_route', 'eni'), 'mix'),
  /** Networks, by id or name, of which the host's port must be. Default: any. */
  networks: optional(array(word), []),
  /** Subnets of these networks, by id, name or CIDR, in order of preference. Default: see the mode. */
  subnets: optional(array(word), []),
  /** Security groups, by id or name, of the ports that are made. Default: Neutron's. */
  securityGroups: optional(array(word)),
  /** Port security of the ports that are made. Default: the network's. */
  portSecurity: optional(boolean),
  /** What any pod may choose itself. */
  allow: optional(array(permission), []),
  /** What the pods of a Kubernetes namespace may choose besides. */
  allowIn: optional(checked(record(array(permission)), namespacesFault), new Map()),
  /** What tells the clusters of one project apart, in everything that is made in the cloud. */
  cluster: optional(label, 'mooring'),
  /** The node's name there. Default: its host name. */
  node: optional(label),
  /** Mode `separate` with binding `host`: the node as Neutron's agent on it calls itself. Default: `node`. */
  host: optional(word),
  /** Ports or NICs that the node has at most, the reserve among them. */
  max: optional(integer(1, 10_000), 256),
  /** After the last use, until a port above the reserve is removed: half to one and a half times that. */
  idleMs: optional(integer(0, 86_400_000), 60_000),
  /** The node's NIC whose Neutron port carries the addresses. Default: that of the default route. */
  hostInterface: optional(word),
  /** The Neutron port itself, by id or name, where the interface does not lead to it. */
  hostPort: optional(word),
  /** What lets an address pass: at the node's port in `mix` and `mix_route`; in `separate` nothing, pairs there, or the port's own host. */
  binding: optional(oneOf('fixed_ips', 'allowed_address_pairs', 'host'), 'fixed_ips'),
  /** Addresses of pods that a port may have at a time. Default: as many as Neutron gives. */
  maxAddresses: optional(integer(1, 65_536)),
  /** Addresses are taken in aligned blocks of so many where one pair, or one route, shall stand for them. */
  blockSize: optional(checked(integer(1, 256), powerFault), 16),
  /** Address pairs that Neutron permits on a port: its max_allowed_address_pair. */
  maxAddressPairs: optional(integer(1, 10_000), 10),
  /** Mode `mix_route`: subnets of one network, at most one per IP version, of which the pods' addresses are. Default: the host port's. */
  podSubnets: optional(array(word), []),
  /** Mode `mix_route`: the router, by id or name. Default: that of the host port's subnet. */
  router: optional(word),
  /** Mode `mix_route`: routes that Neutron permits on a router: its max_routes. */
  maxRoutes: optional(integer(1, 10_000), 30),
  /** After a write, until it is looked at again: an overlapping one of somebody else may have undone it. */
  verifyAfterMs: optional(integer(10, 60_000), 3_000),
  /** Mode `eni`: the node as Nova knows it, by id or name. Default: the server of the host's port. */
  server: optional(word),
  /** Mode `eni`: NICs that the server may have, those that are not ours among them. Default: what its flavour says, else 16. */
  maxNics: optional(integer(1, 1024)),
  /** Mode `eni`: from Nova's answer until the node must have found a NIC. */
  plugMs: optional(integer(0, 600_000), 30_000),
  /** Directory of the port's lock and of the token cache. Default: that of the node. */
  dataDir: optional(absolutePath),
  /** IP versions of the pods' addresses. Default: those of the host's port. */
  ipVersions: optional(checked(array(integer(4, 6)), versionsFault)),
  /** Addresses per subnet that the agent makes ahead of need. */
  reserve: optional(integer(0, 256), 4),
  /** After Neutron's answer, until a new address counts as working although no probe said so. */
  usableAfterMs: optional(integer(0, 60_000), 5_000),
  /** After a subnet was found full, until it is tried again while another one serves. */
  retryFullMs: optional(integer(0, 3_600_000), 60_000),
  /** After a release, until an address may be another pod's. */
  coolDownMs: optional(integer(0, 3_600_000), 30_000),
})

function powerFault(value: number): string | undefined {
  return Math.log2(value) % 1 === 0 ? undefined : `is ${value}, want a power of two`
}

function versionsFault(versions: readonly number[]): string | undefined {
  if (versions.length === 0) return 'is empty, want 4, 6 or both'
  return versions.every(each => each === 4 || each === 6) ? undefined : 'may hold 4 and 6 only'
}

/** RFC 1123: no wildcard, and no namespace that Kubernetes cannot have. */
function namespacesFault(allowIn: ReadonlyMap<string, unknown>): string | undefined {
  const wrong = [...allowIn.keys()].find(each => !/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(each))
  return wrong === undefined ? undefined : `has the key "${wrong}", want names of Kubernetes namespaces`
}

const route = object({
  dst: parsed(text => {
    const prefix = tryParsePrefix(text)
    return prefix === undefined ? undefined : formatPrefix(networkOf(prefix))
  }, 'ADDRESS/LENGTH'),
  gw: optional(
    parsed(text => {
      const ip = tryParseIp(text)
      return ip === undefined ? undefined : formatIp(ip)
    }, 'an IP address'),
  ),
})

const ipam = object({
  neutronConf: optional(neutronConf),
  openstackConf: optional(anyObject),
  cloud: optional(word),
  routes: optional(array(route), []),
  resolvConf: optional(word),
})

const whole = object({ ipam })

export type Config = Omit<Decoded<typeof ipam>, 'neutronConf' | 'routes' | 'openstackConf' | 'cloud'> & {
  readonly neutronConf: Decoded<typeof neutronConf>
  readonly routes: readonly Route[]
  readonly cloud: CloudReference
}

const VERSION_OF_BYTES: Readonly<Record<number, number>> = { 4: 4, 16: 6 }

/** Reads a configuration. @throws {CniError} 7 naming the key, never a value of `openstackConf`. */
export const parseConfig: (config: JsonObject) => Config = oncePerConfig(parse)

function parse(config: JsonObject): Config {
  const { neutronConf: given, openstackConf, cloud, routes, resolvConf } = decode(whole, config).ipam
  if (cloud !== undefined && openstackConf !== undefined)
    throw new CniError(
      codes.invalidConfig,
      'Cannot choose a cloud: "ipam.cloud" and "ipam.openstackConf" are both given',
      { details: 'keep "cloud", and put the credentials into clouds.yaml' },
    )
  if (given?.binding === 'host' && given.mode !== 'separate')
    throw new CniError(
      codes.invalidConfig,
      `Cannot bind ports to a host in mode "${given.mode}": "neutronConf.binding" is "host"`,
      { details: 'that is for mode "separate", whose ports are of their own' },
    )
  return {
    neutronConf: given ?? decode(neutronConf, {}),
    routes: routes.map(routeOf),
    resolvConf,
    cloud: openstackConf === undefined ? { name: cloud } : { conf: withKnownKeys(openstackConf) },
  }
}

function routeOf({ dst, gw }: Decoded<typeof route>): Route {
  if (gw === undefined) return { dst }
  const [family, other] = [parsePrefix(dst).ip.length, tryParseIp(gw)!.length]
  if (family !== other)
    throw new CniError(
      codes.invalidConfig,
      `Cannot use route ${dst} via ${gw}: IPv${VERSION_OF_BYTES[family]} and IPv${VERSION_OF_BYTES[other]} do not mix`,
    )
  return { dst, gw }
}

/** The keys as the OpenStack client spells them; a configuration may write them in any case. */
const spelling = new Map(confKeys.map(key => [key.toLowerCase(), key]))

const withKnownKeys = (conf: JsonObject): JsonObject =>
  Object.fromEntries(Object.entries(conf).map(([key, value]) => [spelling.get(key.toLowerCase()) ?? key, value]))
