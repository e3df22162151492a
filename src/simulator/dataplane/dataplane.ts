// SPDX-License-Identifier: Apache-2.0

/** Keeps the network namespaces equal to the state: the structure at once, the policy after the wire delay. */
import { randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { formatPrefix, hostPrefix, localMac, parseIp, parsePrefix, tryParseMac } from '#base'
import { netnsPath } from '#host'
import { commit } from '#nftables'
import {
  AF_INET,
  AF_INET6,
  addAddress,
  addLink,
  addRoute,
  decodeLink,
  deleteAddress,
  deleteLink,
  deleteRoute,
  dumpLinks,
  getLink,
  setLink,
} from '#rtnetlink'
import type { State } from '../state.ts'
import type { Forwarder } from './forward.ts'
import { guardChanges } from './guard.ts'
import { Namespace } from './namespace.ts'
import { natChanges } from './nat.ts'
import {
  fabricOf,
  outsideOf,
  type Plug,
  type Policy,
  policyOf,
  type RouterPolicy,
  type Structure,
  structureOf,
} from './wire.ts'

/** A running data plane. */
export type Dataplane = {
  /** Names of the namespaces that it has made, for `ip netns exec`. */
  readonly namespaces: () => string[]
  /** Takes everything away. Safe to call twice. */
  readonly close: () => Promise<void>
}

export type DataplaneOptions = {
  /** Of the namespaces' names. */
  readonly prefix: string
  /** Makes the API reachable inside the servers. */
  readonly forwarder: Forwarder
  /** Gets the errors of later changes; they do not end anything. */
  readonly report: (error: Error) => void
}

type Wires = {
  readonly prefix: string
  readonly namespaces: Map<string, Namespace>
  /** Names of the bridges that there are. */
  readonly bridges: Set<string>
  readonly plugs: Map<string, { readonly plug: Plug; readonly device: string }>
  /** What was applied last, as text, by what it is for. */
  readonly applied: Map<string, string>
  readonly routes: Map<string, Set<string>>
  readonly floats: Map<string, Set<string>>
}

/**
 * Starts it and brings it up to date.
 * @throws {Error} without root, and when there are namespaces of that prefix already.
 */
export async function startDataplane(state: State, options: DataplaneOptions): Promise<Dataplane> {
  const { prefix, forwarder, report } = options
  const wires: Wires = {
    prefix,
    namespaces: new Map(),
    bridges: new Set(),
    plugs: new Map(),
    applied: new Map(),
    routes: new Map(),
    floats: new Map(),
  }
  const timers = new Set<NodeJS.Timeout>()
  let scheduled = ''
  let pending: NodeJS.Immediate | undefined
  let isClosed = false
  const schedulePolicy = (): void => {
    const policy = policyOf(state, prefix)
    const text = JSON.stringify(policy)
    if (text === scheduled) return
    scheduled = text
    const timer = setTimeout(() => {
      timers.delete(timer)
      attempt(report, () => applyPolicy(wires, policy))
    }, state.settings.wireDelayMs)
    timers.add(timer)
  }
  const bringUp = (): Promise<void> => {
    const structure = structureOf(state, prefix)
    attempt(report, () => applyStructure(wires, structure))
    return forwarder.follow(structure.machines.map(netnsPath))
  }
  const follow = (): void => {
    pending ??= setImmediate(() => {
      pending = undefined
      bringUp().catch(report)
      schedulePolicy()
    })
  }
  const close = async (): Promise<void> => {
    if (isClosed) return
    isClosed = true
    state.listeners.delete(follow)
    clearImmediate(pending)
    for (const timer of timers) clearTimeout(timer)
    // Its listeners would keep the namespaces alive.
    await forwarder.close()
    for (const namespace of wires.namespaces.values()) attempt(report, () => namespace[Symbol.dispose]())
    wires.namespaces.clear()
  }
  try {
    demandFree(prefix)
    makeFabric(wires)
    const structure = structureOf(state, prefix)
    applyStructure(wires, structure)
    const policy = policyOf(state, prefix)
    scheduled = JSON.stringify(policy)
    applyPolicy(wires, policy)
    await forwarder.follow(structure.machines.map(netnsPath))
  } catch (error) {
    await close()
    throw error
  }
  state.listeners.add(follow)
  return { namespaces: () => [...wires.namespaces.keys()], close }
}

function attempt(report: (error: Error) => void, action: () => void): void {
  try {
    action()
  } catch (error) {
    report(error as Error)
  }
}

function demandFree(prefix: string): void {
  if (process.getuid?.() !== 0) {
    throw new Error(
      `Cannot start the data plane "${prefix}": network namespaces need root. Remedy: run as root, or without a data plane`,
    )
  }
  let names: string[]
  try {
    names = readdirSync(netnsPath('')).filter(name => name.startsWith(`${prefix}-`))
  } catch {
    names = []
  }
  if (names.length === 0) return
  throw new Error(
    `Cannot start the data plane "${prefix}": network namespaces ${names.join(', ')} are there already, of another simulator or of one that was killed. Remedy: another prefix, or ip netns delete NAME`,
  )
}

/** The namespace of that name, made if it is new, with its loopback up. */
function open(wires: Wires, name: string): Namespace {
  const known = wires.namespaces.get(name)
  if (known !== undefined) return known
  const namespace = new Namespace(name)
  wires.namespaces.set(name, namespace)
  // A link-local address that appears seconds later would look like a change that somebody made.
  if (namespace.isOurs) namespace.set('0', 'ipv6', 'conf', 'default', 'accept_dad')
  namespace.route.execute([setLink({ ifname: 'lo' }, { up: true })])
  return namespace
}

function drop(wires: Wires, name: string): void {
  wires.namespaces.get(name)?.[Symbol.dispose]()
  wires.namespaces.delete(name)
  for (const map of [wires.applied, wires.routes, wires.floats]) map.delete(name)
}

/** Bridges forward frames and nothing else: the fabric has no address and no IPv6 of its own. */
function makeFabric(wires: Wires): void {
  const fabric = open(wires, fabricOf(wires.prefix))
  for (const scope of ['all', 'default']) fabric.set('1', 'ipv6', 'conf', scope, 'disable_ipv6')
  for (const hook of ['iptables', 'ip6tables', 'arptables']) fabric.set('0', 'bridge', `bridge-nf-call-${hook}`)
  open(wires, outsideOf(wires.prefix))
}

function applyStructure(wires: Wires, structure: Structure): void {
  const fabric = open(wires, fabricOf(wires.prefix))
  const wanted = new Map(structure.plugs.map(plug => [plug.portId, plug]))
  for (const [portId, { plug }] of wires.plugs) {
    const next = wanted.get(portId)
    if (next !== undefined && next.netns === plug.netns && next.tap === plug.tap) continue
    fabric.route.execute([deleteLink({ ifname: plug.tap })])
    wires.plugs.delete(portId)
  }
  for (const bridge of structure.bridges) if (!wires.bridges.has(bridge)) addBridge(wires, fabric, bridge)
  const machines = new Set([...structure.machines, ...structure.routers])
  for (const name of machines) open(wires, name)
  for (const name of structure.routers) forward(open(wires, name))
  for (const plug of structure.plugs) {
    if (wires.plugs.has(plug.portId)) adjust(wires, plug)
    else connect(wires, fabric, plug)
  }
  const stays = new Set([...machines, fabric.name, outsideOf(wires.prefix)])
  for (const name of wires.namespaces.keys()) if (!stays.has(name)) drop(wires, name)
  for (const bridge of wires.bridges) {
    if (structure.bridges.includes(bridge)) continue
    fabric.route.execute([deleteLink({ ifname: bridge })])
    wires.bridges.delete(bridge)
  }
}

function forward(router: Namespace): void {
  router.set('1', 'ipv4', 'ip_forward')
  router.set('1', 'ipv6', 'conf', 'all', 'forwarding')
}

function addBridge(wires: Wires, fabric: Namespace, name: string): void {
  fabric.route.execute([
    addLink({ ifname: name, linkinfo: { kind: 'bridge', data: { forwardDelay: 0, stpState: 0, mcastSnooping: 0 } } }),
    setLink({ ifname: name }, { up: true }),
  ])
  wires.bridges.add(name)
}

const indexOf = (namespace: Namespace, ifname: string): number => {
  const message = namespace.route.execute([getLink({ ifname })])[0]?.messages[0]
  if (message === undefined) throw new Error(`Cannot find ${ifname} in network namespace ${namespace.name}`)
  return decodeLink(message).index
}

/** Plugs a NIC in: the pair, the bridge, and at boot its address and default route. */
function connect(wires: Wires, fabric: Namespace, plug: Plug): void {
  const target = open(wires, plug.netns)
  const device = plug.device.endsWith('*') ? freeName(target, plug.device.slice(0, -1)) : plug.device
  const address = tryParseMac(plug.mac) ?? localMac(randomBytes(6))
  const mtu = plug.mtuBytes
  fabric.route.execute([
    addLink({
      ifname: plug.tap,
      mtu,
      linkinfo: { kind: 'veth', data: { peer: { ifname: device, address, mtu, netnsFd: target.fd } } },
    }),
  ])
  wires.plugs.set(plug.portId, { plug, device })
  const bridge = indexOf(fabric, plug.bridge)
  fabric.route.execute([setLink({ ifname: plug.tap }, { master: bridge, up: true })])
  const index = indexOf(target, device)
  const addresses = plug.addresses.map(text => addAddress({ index, prefix: parsePrefix(text) }, { replace: true }))
  if (plug.isUp) target.route.execute([setLink({ index }, { up: true }), ...addresses])
  if (plug.gateway !== undefined) target.route.execute([defaultRoute(plug.gateway, index)])
}

function defaultRoute(text: string, outInterface: number) {
  const gateway = parseIp(text)
  return addRoute({ family: gateway.length === 4 ? AF_INET : AF_INET6, gateway, outInterface }, 'replace')
}

function freeName(namespace: Namespace, stem: string): string {
  const links = namespace.route.execute([dumpLinks()])[0]?.messages.map(decodeLink) ?? []
  const taken = new Set(links.map(link => link.ifname))
  for (let number = 0; ; number++) if (!taken.has(`${stem}${number}`)) return `${stem}${number}`
}

/** A router's interfaces follow their ports; a server's are its own affair once it runs. */
function adjust(wires: Wires, plug: Plug): void {
  const held = wires.plugs.get(plug.portId)!
  wires.plugs.set(plug.portId, { ...held, plug })
  if (!plug.isRouter && plug.mac !== '') return
  const target = open(wires, plug.netns)
  const before = new Set(held.plug.addresses)
  const gone = held.plug.addresses.filter(text => !plug.addresses.includes(text))
  const fresh = plug.addresses.filter(text => !before.has(text))
  if (gone.length + fresh.length === 0) return
  const index = indexOf(target, held.device)
  target.route.execute([
    ...gone.map(text => deleteAddress({ index, prefix: parsePrefix(text) })),
    ...fresh.map(text => addAddress({ index, prefix: parsePrefix(text) }, { replace: true })),
  ])
}

function applyPolicy(wires: Wires, policy: Policy): void {
  const fabric = open(wires, fabricOf(wires.prefix))
  const guard = { guarded: policy.guarded, sources: policy.sources }
  once(wires, fabric.name, guard, () => commit(fabric.netfilter, guardChanges(policy)))
  for (const router of policy.routers) {
    const namespace = wires.namespaces.get(router.netns)
    // A router may be gone by the time its policy is due.
    if (namespace !== undefined) applyRouter(wires, namespace, router)
  }
}

/** Runs the action if `what` differs from what was applied under that name. */
function once(wires: Wires, name: string, what: unknown, action: () => void): void {
  const text = JSON.stringify(what)
  if (wires.applied.get(name) === text) return
  action()
  wires.applied.set(name, text)
}

function applyRouter(wires: Wires, namespace: Namespace, router: RouterPolicy): void {
  const { outside, floating } = router
  once(wires, namespace.name, { outside, floating }, () => commit(namespace.netfilter, natChanges(router)))
  applyFloats(wires, namespace, router)
  const had = wires.routes.get(namespace.name) ?? new Set()
  const wanted = new Map(router.routes.map(route => [`${route.destination} ${route.nexthop}`, route]))
  const now = new Set(had)
  wires.routes.set(namespace.name, now)
  for (const key of had) {
    if (wanted.has(key)) continue
    const [destination = '', nexthop = ''] = key.split(' ')
    namespace.route.execute([deleteRoute(extraRoute({ destination, nexthop }))])
    now.delete(key)
  }
  for (const [key, route] of wanted) {
    if (had.has(key)) continue
    // A second next hop of the same destination stands behind the first.
    namespace.route.execute([addRoute(extraRoute(route), 'append')])
    now.add(key)
  }
}

function extraRoute({ destination, nexthop }: { destination: string; nexthop: string }) {
  const gateway = parseIp(nexthop)
  return { family: gateway.length === 4 ? AF_INET : AF_INET6, destination: parsePrefix(destination), gateway }
}

/** The router answers for its floating IPs. */
function applyFloats(wires: Wires, namespace: Namespace, { outside, floating }: RouterPolicy): void {
  const had = wires.floats.get(namespace.name) ?? new Set()
  const wanted = new Set(
    outside === undefined ? [] : floating.map(pair => formatPrefix(hostPrefix(parseIp(pair.outside)))),
  )
  const gone = [...had].filter(text => !wanted.has(text))
  const fresh = [...wanted].filter(text => !had.has(text))
  wires.floats.set(namespace.name, wanted)
  if (outside === undefined || gone.length + fresh.length === 0) return
  const index = indexOf(namespace, outside.device)
  namespace.route.execute([
    ...gone.map(text => deleteAddress({ index, prefix: parsePrefix(text) })),
    ...fresh.map(text => addAddress({ index, prefix: parsePrefix(text) }, { replace: true })),
  ])
}
