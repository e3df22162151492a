// SPDX-License-Identifier: Apache-2.0

/**
 * What has to be true on the wire, computed from the state: pure, so that it can be looked at without root.
 *
 * The structure (namespaces, bridges, NICs, router interfaces) follows the API at once, as a hypervisor plugs a NIC
 * before it answers. The policy (who may send what, extra routes, floating IPs) follows after the wire delay.
 */
import { formatPrefix, hostPrefix, networkOf, parsePrefix, tryParseIp, tryParsePrefix } from '#base'
import { find, list, type Port, type Router, type Server, type State, type Subnet } from '../state.ts'

/** A veth pair between a bridge of the fabric and a namespace. */
export type Plug = {
  readonly portId: string
  /** Its end at the bridge. */
  readonly tap: string
  readonly bridge: string
  readonly netns: string
  /** Name of the other end; one that ends with `*` gets the first free number. */
  readonly device: string
  readonly mac: string
  readonly mtuBytes: number
  /** Given once, when the pair is made; a router's are kept equal. */
  readonly addresses: readonly string[]
  /** Default route that comes with it. */
  readonly gateway: string | undefined
  readonly isRouter: boolean
  /** False: the device arrives down, as a hot-plugged NIC does. */
  readonly isUp: boolean
}

export type Structure = {
  readonly bridges: readonly string[]
  /** Namespaces of servers and routers. */
  readonly machines: readonly string[]
  readonly routers: readonly string[]
  readonly plugs: readonly Plug[]
}

/** An address, or a prefix, that a tap may send from. */
export type Source = { readonly tap: string; readonly mac: string; readonly prefix: string }
export type RouterPolicy = {
  readonly netns: string
  /** The gateway's device and address; undefined: no way outside. */
  readonly outside: { readonly device: string; readonly address: string; readonly snat: boolean } | undefined
  readonly routes: readonly { readonly destination: string; readonly nexthop: string }[]
  readonly floating: readonly { readonly outside: string; readonly inside: string }[]
}
export type Policy = {
  /** Taps whose traffic is checked. */
  readonly guarded: readonly string[]
  readonly sources: readonly Source[]
  readonly routers: readonly RouterPolicy[]
}

// As Neutron names them; an interface name has 15 characters.
const short = (id: string): string => id.slice(0, 11)
export const tapOf = (portId: string): string => `tap${short(portId)}`
const bridgeOf = (networkId: string): string => `brq${short(networkId)}`

/** The namespace of a server: its metadata key `netns` as it is, or made of the prefix and its name. */
function machineOf(state: State, prefix: string, server: Server): string {
  const wanted = server.metadata['netns']
  if (wanted !== undefined && /^[\w.-]+$/.test(wanted)) return wanted
  const twin = list(state, 'servers').find(other => other.name === server.name)
  const suffix = twin === undefined || twin.id === server.id ? '' : `-${server.id.slice(0, 8)}`
  return `${prefix}-vm-${server.name.replaceAll(/[^\w.-]/g, '_')}${suffix}`
}

function routerNetnsOf(state: State, prefix: string, router: Router): string {
  const name = router.name.replaceAll(/[^\w.-]/g, '_')
  const twin = list(state, 'routers').find(other => other.name === router.name)
  const isUnique = name !== '' && twin?.id === router.id
  return `${prefix}-router-${isUnique ? name : router.id.slice(0, 8)}`
}

export const outsideOf = (prefix: string): string => `${prefix}-outside`
export const fabricOf = (prefix: string): string => `${prefix}-fabric`

const withLength = (state: State, fixed: { subnet_id: string; ip_address: string }): string | undefined => {
  const subnet = find(state, 'subnets', fixed.subnet_id)
  return subnet && `${fixed.ip_address}/${parsePrefix(subnet.cidr).length}`
}

export function structureOf(state: State, prefix: string): Structure {
  const servers = list(state, 'servers')
  const routers = list(state, 'routers')
  const plugs = [
    ...servers.flatMap(server => serverPlugs(state, machineOf(state, prefix, server), server)),
    ...routers.flatMap(router => routerPlugs(state, routerNetnsOf(state, prefix, router), router)),
    ...outsidePlugs(state, outsideOf(prefix)),
  ]
  return {
    bridges: [...new Set(plugs.map(plug => plug.bridge))],
    machines: servers.map(server => machineOf(state, prefix, server)),
    routers: routers.map(router => routerNetnsOf(state, prefix, router)),
    plugs,
  }
}

const basicPlug = (state: State, port: Port) => ({
  portId: port.id,
  tap: tapOf(port.id),
  bridge: bridgeOf(port.network_id),
  mac: port.mac_address,
  mtuBytes: find(state, 'networks', port.network_id)?.mtu ?? 1500,
})

/** The first NIC of a server is configured at boot; later ones arrive down and bare. */
function serverPlugs(state: State, netns: string, server: Server): Plug[] {
  return server.ports.flatMap((nic, number) => {
    const port = find(state, 'ports', nic.id)
    if (port === undefined) return []
    const isBoot = number === 0
    const first = port.fixed_ips[0]
    const address = isBoot && first !== undefined ? withLength(state, first) : undefined
    const gateway = isBoot && first !== undefined ? find(state, 'subnets', first.subnet_id)?.gateway_ip : undefined
    return {
      ...basicPlug(state, port),
      netns,
      device: 'eth*',
      addresses: address === undefined ? [] : [address],
      gateway: gateway ?? undefined,
      isRouter: false,
      isUp: isBoot,
    }
  })
}

function routerPlugs(state: State, netns: string, router: Router): Plug[] {
  const ports = list(state, 'ports').filter(port => port.device_id === router.id)
  return ports.map(port => {
    const isOuter = port.id === router.gw_port_id
    const subnet = find(state, 'subnets', port.fixed_ips[0]?.subnet_id ?? '')
    return {
      ...basicPlug(state, port),
      netns,
      device: `${isOuter ? 'qg' : 'qr'}-${short(port.id)}`,
      addresses: port.fixed_ips.map(fixed => withLength(state, fixed)).filter(text => text !== undefined),
      gateway: isOuter ? (subnet?.gateway_ip ?? undefined) : undefined,
      isRouter: true,
      isUp: true,
    }
  })
}

/** The world outside has the gateway's address of every external subnet, and one that nobody routes by chance. */
const WORLD = '203.0.113.1/32'

function outsidePlugs(state: State, netns: string): Plug[] {
  const networks = list(state, 'networks').filter(network => network['router:external'])
  return networks.map(network => {
    const subnets = list(state, 'subnets').filter(subnet => subnet.network_id === network.id)
    return {
      portId: network.id,
      tap: `ext${short(network.id)}`,
      bridge: bridgeOf(network.id),
      netns,
      device: 'eth*',
      mac: '',
      mtuBytes: network.mtu,
      addresses: [...subnets.map(gatewayWithLength).filter(text => text !== undefined), WORLD],
      gateway: undefined,
      isRouter: false,
      isUp: true,
    }
  })
}

const gatewayWithLength = (subnet: Subnet): string | undefined =>
  subnet.gateway_ip === null ? undefined : `${subnet.gateway_ip}/${parsePrefix(subnet.cidr).length}`

export function policyOf(state: State, prefix: string): Policy {
  const plugged = list(state, 'servers')
    .flatMap(server => server.ports)
    .map(nic => find(state, 'ports', nic.id))
    .filter(port => port !== undefined)
  const guarded = plugged.filter(port => port.port_security_enabled)
  return {
    guarded: guarded.map(port => tapOf(port.id)),
    sources: guarded.flatMap(sourcesOf),
    routers: list(state, 'routers').map(router => routerPolicy(state, prefix, router)),
  }
}

/** Two pairs may mean the same prefix; once is enough. */
function sourcesOf(port: Port): Source[] {
  const tap = tapOf(port.id)
  const own = port.fixed_ips.map(fixed => ({ mac: port.mac_address, text: fixed.ip_address }))
  const paired = port.allowed_address_pairs.map(pair => ({ mac: pair.mac_address, text: pair.ip_address }))
  const sources = [...own, ...paired].map(({ mac, text }): Source => {
    const ip = tryParseIp(text)
    const prefix = ip === undefined ? networkOf(parsePrefix(text)) : hostPrefix(ip)
    return { tap, mac: mac.toLowerCase(), prefix: formatPrefix(prefix) }
  })
  const unique = new Map(sources.map(source => [`${source.mac} ${source.prefix}`, source]))
  return [...unique.values()]
}

function routerPolicy(state: State, prefix: string, router: Router): RouterPolicy {
  const gateway = router.gw_port_id === null ? undefined : find(state, 'ports', router.gw_port_id)
  const address = gateway?.fixed_ips.find(fixed => !fixed.ip_address.includes(':'))?.ip_address
  const floating = list(state, 'floatingips').flatMap(row =>
    row.router_id === router.id && row.fixed_ip_address !== null
      ? [{ outside: row.floating_ip_address, inside: row.fixed_ip_address }]
      : [],
  )
  return {
    netns: routerNetnsOf(state, prefix, router),
    outside:
      gateway === undefined || address === undefined
        ? undefined
        : {
            device: `qg-${short(gateway.id)}`,
            address,
            snat: router.external_gateway_info?.enable_snat !== false,
          },
    routes: router.routes.flatMap(route => {
      const destination = programmable(route.destination)
      return destination === undefined ? [] : [{ destination, nexthop: route.nexthop }]
    }),
    floating,
  }
}

/** Recorded: a destination with host bits is stored and never programmed. */
function programmable(text: string): string | undefined {
  const ip = tryParseIp(text)
  if (ip !== undefined) return formatPrefix(hostPrefix(ip))
  const prefix = tryParsePrefix(text)
  if (prefix === undefined || formatPrefix(networkOf(prefix)) !== text) return undefined
  return text
}
