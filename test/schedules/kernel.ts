// SPDX-License-Identifier: Apache-2.0

// The kernel of a node in a schedule: the real one in namespaces without names, or one in memory that knows links and the
// addresses behind them and takes no time. Both refuse an address that a link has already.

import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { formatIp, parseIp } from '#base'
import { type Host, HostContext, inlineHost, makeAnonymousNetns } from '#host'
import { OWNER_PREFIX } from '#plugins'
import {
  AF_INET,
  addAddress,
  addLink,
  addRoute,
  decodeLink,
  decodeRoute,
  dumpLinks,
  dumpRoutes,
  getLink,
  setLink,
} from '#rtnetlink'
import type { Simulator } from '#simulator'

export type Sandbox = {
  /** What CNI_NETNS leads to. */
  readonly target: string
  /** The container's namespace goes, and its links with it. */
  remove(): void
}

export type Kernel = Disposable & {
  readonly host: Host
  /** The addresses that lead to pods. */
  addresses(): string[]
  /** Links of pods, whatever is behind them. */
  podLinks(): string[]
  makeSandbox(containerId: string): Sandbox
  /** When the next NIC that the cloud attaches shows up; never: not before `heal`. */
  delayNextNic?(comes: NicComes): void
  heal?(): void
  /** No process of Mooring is there: what only such a one held open goes. */
  abandon?(): void
}

export type NicComes = { readonly afterMs: number } | 'never'

/** Where a kernel is made: the node's own NIC, and the cloud in whose server it is. */
export type KernelSite = { readonly mac: Uint8Array; readonly simulator: Simulator }

/** Words of the owner's mark on a link (IFLA_IFALIAS): mooring TYPE NETWORK CONTAINER INTERFACE. */
const containerOf = (owner: string) => owner.split(' ')[3]

type FakeLink = { readonly owner: string; readonly mac: Uint8Array; readonly addresses: readonly string[] }

/** A kernel in memory: what veth-route and the reconciler ask of one. */
export function fakeKernel({ mac }: KernelSite): Kernel {
  const links = new Map<string, FakeLink>()
  const host: Host = {
    ...emptyHost({ mac }),
    async attachRoutedPod({ pod }) {
      const addresses = pod.addresses.map(({ ip }) => formatIp(ip))
      assert.ok(!links.has(pod.hostLink), `${pod.hostLink} is there already`)
      for (const [name, link] of links)
        for (const address of addresses)
          assert.ok(!link.addresses.includes(address), `${address} is behind ${name} too`)
      links.set(pod.hostLink, { owner: pod.owner, mac: pod.hostMac, addresses })
      return false
    },
    detachRoutedPod: async ({ traces }) => {
      const link = links.get(traces.hostLink)
      if (link !== undefined) links.set(traces.hostLink, { ...link, addresses: [] })
    },
    async removeLinks({ links: given }) {
      for (const { name, owner } of given) if (links.get(name)?.owner === owner) links.delete(name)
    },
    findRouted: async ({ name, owner }) => {
      const link = links.get(name)
      return link?.owner === owner ? ({ hostLink: name, addresses: [], uplinkIndex: undefined } as never) : undefined
    },
    listFirewallPods: async () =>
      [...links].map(([link, { addresses }]) => ({ link, addresses: addresses.map(parseIp) })),
    findFirewallPods: async ({ links: names }) =>
      [...links].flatMap(([link, { addresses }]) =>
        names.includes(link) ? [{ link, addresses: addresses.map(parseIp) }] : [],
      ),
    listOwnedLinks: async () => [...links].map(([name, { owner }]) => ({ name, owner })),
    describeLink: async ({ name }) => {
      const link = links.get(name)
      return link === undefined ? undefined : { index: 9, kind: 'veth', owner: link.owner, mac: link.mac }
    },
    isOperational: async () => true,
    hasPodLink: async ({ addresses }) => {
      const wanted = addresses.map(({ ip }) => formatIp(ip))
      return [...links.values()].some(link => wanted.every(address => link.addresses.includes(address)))
    },
    ensureFirewall: async () => false,
    probeArp: async () => [],
  }
  return {
    host,
    addresses: () => [...links.values()].flatMap(link => link.addresses),
    podLinks: () => [...links.keys()],
    makeSandbox: containerId => ({
      target: '/proc/self/ns/net',
      remove() {
        for (const [name, { owner }] of links) if (containerOf(owner) === containerId) links.delete(name)
      },
    }),
    [Symbol.dispose]: () => links.clear(),
  }
}

/** A node with an uplink; what is not there has nothing to tell: lists are empty. */
export function emptyHost({ mac }: Pick<KernelSite, 'mac'>): Host {
  const nothing = Object.keys(inlineHost(undefined as never)).map(name => [
    name,
    async () => (/^(list|find)\w+s$/.test(name) ? [] : undefined),
  ])
  return {
    ...Object.fromEntries(nothing),
    findUplink: async () => ({ index: UPLINK, name: 'uplink', mac, mtuBytes: 1450, addresses: [] }),
  } as Host
}

/** Index of the uplink in memory. */
export const UPLINK = 2

/** A node's namespace with an uplink. Needs root. */
export function makeNode({ mac }: Pick<KernelSite, 'mac'>): HostContext {
  const context = new HostContext(makeAnonymousNetns())
  context.onNode(() => {
    const { route } = context
    route.execute([
      addLink({
        ifname: 'uplink',
        address: mac,
        linkinfo: { kind: 'veth', data: { peer: { ifname: 'segment' } } },
      }),
    ])
    const { index } = decodeLink(route.execute([getLink({ ifname: 'uplink' })])[0]!.messages[0]!)
    route.execute([
      setLink({ index }, { up: true }),
      addAddress({ index, prefix: { ip: parseIp('192.0.2.1'), length: 24 } }),
      addRoute({ family: AF_INET, gateway: parseIp('192.0.2.254'), outInterface: index }),
    ])
  })
  return context
}

/** The real kernel, in a namespace of the schedule's own. Needs root. */
export function realKernel(site: KernelSite): Kernel {
  const stack = new DisposableStack()
  const context = stack.use(makeNode(site))
  return {
    host: inlineHost(context),
    podLinks: () =>
      context.onNode(() =>
        context.route.execute([dumpLinks()])[0]!.messages.flatMap(message => {
          const { ifalias, ifname } = decodeLink(message)
          return ifalias?.startsWith(OWNER_PREFIX) ? [ifname!] : []
        }),
      ),
    addresses: () =>
      context.onNode(() =>
        context.route.execute([dumpRoutes(AF_INET)])[0]!.messages.flatMap(message => {
          const { destination, type } = decodeRoute(message)
          const isPod = type === RTN_UNICAST && destination?.length === 32
          return isPod ? [formatIp(destination.ip)] : []
        }),
      ),
    makeSandbox() {
      const fd = makeAnonymousNetns()
      return { target: `/proc/${process.pid}/fd/${fd}`, remove: () => closeSync(fd) }
    },
    [Symbol.dispose]: () => stack.dispose(),
  }
}

const RTN_UNICAST = 1
