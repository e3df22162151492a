// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatMac, tryParseIp, tryParseMac, tryParsePrefix } from '#base'
import {
  array,
  boolean,
  type Call,
  CniError,
  checked,
  codes,
  type Decoder,
  decode,
  type JsonObject,
  lookup,
  object,
  optional,
  parseCniArgs,
  parsed,
  string,
} from '#cni'

/** What can be chosen for an attachment. */
export type Wishes = {
  readonly networks?: readonly string[]
  readonly subnets?: readonly string[]
  readonly addresses?: readonly string[]
  readonly mac?: string
  readonly port?: string
  readonly securityGroups?: readonly string[]
  readonly portSecurity?: boolean
}

export type Aspect = keyof Wishes

/** What one source says, and the keys by which it says it, for errors. */
export type Layer = { readonly wishes: Wishes; readonly keys: Readonly<Record<Aspect, string>> }

/** The pod as the runtime names it in CNI_ARGS. */
export type Pod = {
  readonly namespace: string | undefined
  readonly name: string | undefined
  /** For errors: ` (pod NAMESPACE/NAME)`, or nothing. */
  readonly text: string
}

const NAMED_MAX = 16
const NAME_LENGTH_MAX = 255

/** The id or name of something in Neutron. */
const name = checked(string, text => {
  if (text.trim() === '') return 'is empty'
  return text.length > NAME_LENGTH_MAX ? `is longer than ${NAME_LENGTH_MAX} characters` : undefined
})

const atMost = <T>(of: Decoder<T[]>) =>
  checked(of, list => (list.length > NAMED_MAX ? `names ${list.length}, want ${NAMED_MAX} at most` : undefined))
const names = atMost(array(name))

/** With or without a length: that of the subnet counts. */
function parseAddress(text: string): string | undefined {
  const ip = tryParseIp(text) ?? tryParsePrefix(text)?.ip
  return ip === undefined ? undefined : formatIp(ip)
}
const addresses = atMost(array(parsed(parseAddress, 'an IP address')))

function parseMac(text: string): string | undefined {
  const mac = tryParseMac(text)
  const fits = mac !== undefined && (mac[0]! & 1) === 0 && mac.some(byte => byte !== 0)
  return fits ? formatMac(mac) : undefined
}
const mac = parsed(parseMac, 'a MAC that a NIC can have')

const podKeys = object({
  networks: optional(names),
  subnets: optional(names),
  ips: optional(addresses),
  mac: optional(mac),
  port: optional(name),
  securityGroups: optional(names),
  portSecurity: optional(boolean),
})

/**
 * What a pod's author writes as an object: `args.cni`, and a pod's annotation. Unknown keys are others'.
 * @param source names it in errors, such as `args.cni`
 * @throws {CniError} 7
 */
export function podLayer(source: string, given: JsonObject): Layer {
  const { ips, ...others } = decode(podKeys, given, source)
  return { wishes: withoutGaps({ ...others, addresses: ips?.length === 0 ? undefined : ips }), keys: keysOf(source) }
}

const keysOf = (source: string): Layer['keys'] => ({
  networks: `${source}.networks`,
  subnets: `${source}.subnets`,
  addresses: `${source}.ips`,
  mac: `${source}.mac`,
  port: `${source}.port`,
  securityGroups: `${source}.securityGroups`,
  portSecurity: `${source}.portSecurity`,
})

/** An operator's wishes, which need nobody's permission. */
export const operatorsLayer = (conf: {
  readonly networks: readonly string[]
  readonly subnets: readonly string[]
  readonly securityGroups: readonly string[] | undefined
  readonly portSecurity: boolean | undefined
}): Wishes => ({
  networks: conf.networks,
  subnets: conf.subnets,
  ...(conf.securityGroups === undefined ? {} : { securityGroups: conf.securityGroups }),
  ...(conf.portSecurity === undefined ? {} : { portSecurity: conf.portSecurity }),
})

const requestKeys = object({
  args: optional(object({ cni: optional((value): JsonObject | undefined => value as JsonObject | undefined) })),
  runtimeConfig: optional(object({ ips: optional(addresses), mac: optional(parsed(text => text, 'a MAC')) })),
})

/** `args.cni` and `runtimeConfig` of a request, the more specific last. @throws {CniError} 7 */
export function requestLayers(config: JsonObject): Layer[] {
  // Most requests have neither, and every ADD comes by here.
  if ((lookup(config, 'args') ?? lookup(config, 'runtimeConfig') ?? undefined) === undefined) return []
  const { args, runtimeConfig } = decode(requestKeys, config)
  const { ips = [], mac: text = '' } = runtimeConfig ?? {}
  // An empty text is what Go's encoder makes of no MAC.
  const given: JsonObject = { ...(ips.length > 0 && { ips }), ...(text !== '' && { mac: text }) }
  return [podLayer('args.cni', args?.cni ?? {}), podLayer('runtimeConfig', given)]
}

const argKeys = {
  NEUTRON_NETWORK: 'networks',
  NEUTRON_SUBNET: 'subnets',
  IP: 'addresses',
  MAC: 'mac',
  NEUTRON_PORT: 'port',
  NEUTRON_SECURITY_GROUPS: 'securityGroups',
  NEUTRON_PORT_SECURITY: 'portSecurity',
} as const satisfies Record<string, Aspect>

const argLayerKeys = Object.fromEntries(
  Object.entries(argKeys).map(([key, aspect]) => [aspect, `CNI_ARGS ${key}`]),
) as Layer['keys']

/** Keys that runtimes and meta plugins send to every plugin. GATEWAY is `static`'s: of Neutron, the subnet has it. */
const OTHERS = ['GATEWAY', 'K8S_POD_NAMESPACE', 'K8S_POD_NAME', 'K8S_POD_INFRA_CONTAINER_ID', 'K8S_POD_UID'] as const

const knownArgs = [...(Object.keys(argKeys) as (keyof typeof argKeys)[]), ...OTHERS]

/** What CNI_ARGS chooses. Lists are separated by commas. @throws {CniError} 4 */
export function argsLayer(args: string): Layer {
  const given = parseCniArgs(args, knownArgs)
  const read = <T>(key: keyof typeof argKeys, parse: (text: string) => T): T | undefined => {
    const text = given[key]
    return text === undefined || text === '' ? undefined : parse(text)
  }
  const wrong = (key: string, text: string, want: string) =>
    new CniError(codes.invalidEnvironment, `CNI_ARGS: ${key} is "${text}", want ${want}`)
  const list = (key: keyof typeof argKeys) => read(key, text => listed(text, key, wrong))
  const wishes = withoutGaps({
    networks: list('NEUTRON_NETWORK'),
    subnets: list('NEUTRON_SUBNET'),
    addresses: list('IP')?.map(text => {
      const address = parseAddress(text)
      if (address === undefined) throw wrong('IP', text, 'an IP address')
      return address
    }),
    mac: read('MAC', text => {
      const value = parseMac(text)
      if (value === undefined) throw wrong('MAC', text, 'a MAC that a NIC can have')
      return value
    }),
    port: read('NEUTRON_PORT', text => text),
    securityGroups: list('NEUTRON_SECURITY_GROUPS'),
    portSecurity: read('NEUTRON_PORT_SECURITY', text => {
      if (!/^(true|false)$/i.test(text)) throw wrong('NEUTRON_PORT_SECURITY', text, 'true or false')
      return text.toLowerCase() === 'true'
    }),
  })
  return { wishes, keys: argLayerKeys }
}

function listed(text: string, key: string, wrong: (key: string, text: string, want: string) => CniError): string[] {
  const items = text.split(',').map(item => item.trim())
  if (items.some(item => item === '')) throw wrong(key, text, 'names separated by commas')
  if (items.length > NAMED_MAX) throw wrong(key, text, `${NAMED_MAX} names at most`)
  return items
}

/** Whom an attachment is for. @throws {CniError} 4 where CNI_ARGS names two namespaces: a policy hangs on it */
export function podOf({ args }: Pick<Call, 'args'>): Pod {
  const pairs = args.split(';')
  const values = (key: string) => [
    ...new Set(pairs.filter(pair => pair.startsWith(`${key}=`)).map(pair => pair.slice(key.length + 1))),
  ]
  const [namespaces, podNames] = [values('K8S_POD_NAMESPACE'), values('K8S_POD_NAME')]
  if (namespaces.length > 1)
    throw new CniError(
      codes.invalidEnvironment,
      `CNI_ARGS: K8S_POD_NAMESPACE is given as ${namespaces.map(each => `"${each}"`).join(' and ')}`,
    )
  const some = (text: string | undefined) => (text === '' ? undefined : text)
  const [namespace, podName] = [some(namespaces[0]), some(podNames[0])]
  return {
    namespace,
    name: podName,
    text: podName === undefined ? '' : ` (pod ${namespace ?? '?'}/${podName})`,
  }
}

function withoutGaps(wishes: { readonly [Key in Aspect]?: Wishes[Key] | undefined }): Wishes {
  return Object.fromEntries(Object.entries(wishes).filter(([, value]) => value !== undefined)) as Wishes
}
