// SPDX-License-Identifier: Apache-2.0

// The kernel of a node in a schedule: the real one in namespaces without names, or one in memory that knows links and the
// addresses behind them, takes its time over a link, and refuses to work on one now and then. Both refuse an address that a
// link has already.

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
import { NODE_ADDRESS } from './hand.ts'
import { randomFrom } from './schedule.ts'
import { type LinkWork, troubled } from './trouble.ts'

export type Sandbox = {
  /** What CNI_NETNS leads to. */
  readonly target: string
  /** The container's namespace goes, and its links with it. */
  remove(): void
}

export type Kernel = Disposable & {
  readonly host: Host
  /** The addresses that lead to pods, and to whose. */
  carried(): Carried[]
  /** Links of pods, whatever is behind them. */
  podLinks(): string[]
  makeSandbox(containerId: string): Sandbox
  /** When the next NIC that the cloud attaches shows up; never: not before `heal`. */
  delayNextNic?(comes: NicComes): void
  /** The next so many works of each kind on a link fail. */
  refuse?(times: Readonly<Record<LinkWork, number>>): void
  /** How many have failed so. */
  refusals?(): number
  heal?(): void
  /** The machine is started again: no link of a pod has outlived that. */
  reboot?(): void
  /** No process of Mooring is there: what only such a one held open goes. */
  abandon?(): void
}

export type NicComes = { readonly afterMs: number } | 'never'

/** An address that leads to a container, undefined where nobody says to which. */
export type Carried = { readonly address: string; readonly containerId: string | undefined }

/** Where a kernel is made: the node's own NIC, the cloud in whose server it is, and what its moods follow from. */
export type KernelSite = { readonly mac: Uint8Array; readonly simulator: Simulator; readonly seed: number }

/** Words of the owner's mark on a link (IFLA_IFALIAS): mooring TYPE NETWORK CONTAINER INTERFACE. */
const containerOf = (owner: string) => owner.split(' ')[3]

type FakeLink = {
  readonly owner: string
  readonly mac: Uint8Array
  /** They lead to the container until the link is gone. */
  readonly addresses: readonly string[]
  /** What the firewall knows of it still. */
  elements: readonly string[]
}

/** A namespace that nobody holds any more is taken apart, and its links with it, so many ms later. */
const CLEANUP_MS = [0, 0, 2, 10]

/** A kernel in memory: what veth-route and the reconciler ask of one. */
export function fakeKernel({ mac, seed }: KernelSite): Kernel {
  const links = new Map<string, FakeLink>()
  const random = randomFrom(seed)
  const ends = new Set<NodeJS.Timeout>()
  const host: Host = {
    ...emptyHost({ mac }),
    async attachRoutedPod({ pod }) {
      const addresses = pod.addresses.map(({ ip }) => formatIp(ip))
      assert.ok(!links.has(pod.hostLink), `${pod.hostLink} is there already`)
      for (const [name, link] of links)
        for (const address of addresses)
          assert.ok(!link.addresses.includes(address), `${address} is behind ${name} too`)
      links.set(pod.hostLink, { owner: pod.owner, mac: pod.hostMac, addresses, elements: addresses })
      return false
    },
    detachRoutedPod: async ({ traces }) => {
      const link = links.get(traces.hostLink)
      if (link !== undefined) link.elements = []
    },
    async removeLinks({ links: given }) {
      for (const { name, owner } of given) if (links.get(name)?.owner === owner) links.delete(name)
    },
    findRouted: async ({ name, owner }) => {
      const link = links.get(name)
      return link?.owner === owner ? ({ hostLink: name, addresses: [], uplinkIndex: undefined } as never) : undefined
    },
    listFirewallPods: async () =>
      [...links].map(([link, { elements }]) => ({ link, addresses: elements.map(parseIp) })),
    findFirewallPods: async ({ links: names }) =>
      [...links].flatMap(([link, { elements }]) =>
        names.includes(link) ? [{ link, addresses: elements.map(parseIp) }] : [],
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
  const trouble = troubled(host, { attach: ['attachRoutedPod'], detach: ['detachRoutedPod', 'removeLinks'] }, seed)
  /** Those links of a container that are there now: one of the same name that comes later is another. */
  function end(containerId: string): void {
    const dying = [...links].filter(([, { owner }]) => containerOf(owner) === containerId)
    const timer = setTimeout(() => {
      ends.delete(timer)
      for (const [name, link] of dying) if (links.get(name) === link) links.delete(name)
    }, CLEANUP_MS[random(CLEANUP_MS.length)])
    ends.add(timer)
  }
  return {
    ...{ host: trouble.host, refuse: trouble.refuse, refusals: trouble.refusals, heal: trouble.heal },
    carried: () =>
      [...links.values()].flatMap(({ owner, addresses }) =>
        addresses.map(address => ({ address, containerId: containerOf(owner) })),
      ),
    podLinks: () => [...links.keys()],
    makeSandbox: containerId => ({ target: '/proc/self/ns/net', remove: () => end(containerId) }),
    reboot: () => links.clear(),
    [Symbol.dispose]() {
      for (const timer of ends) clearTimeout(timer)
      links.clear()
    },
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
    findUplink: async () => ({ index: UPLINK, name: 'uplink', mac, mtuBytes: 1450, addresses: [nodeAddress] }),
  } as Host
}

/** The node's own, as its NIC has it. */
const nodeAddress = { ip: parseIp(NODE_ADDRESS), length: 24 }

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
      addAddress({ index, prefix: { ...nodeAddress, length: 32 } }),
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
    carried: () =>
      context.onNode(() => {
        const links = context.route.execute([dumpLinks()])[0]!.messages.map(decodeLink)
        const owners = new Map(links.map(({ index, ifalias = '' }) => [index, containerOf(ifalias)]))
        return context.route.execute([dumpRoutes(AF_INET)])[0]!.messages.flatMap(message => {
          const { destination, type, outInterface = 0 } = decodeRoute(message)
          const isPod = type === RTN_UNICAST && destination?.length === 32
          return isPod ? [{ address: formatIp(destination.ip), containerId: owners.get(outInterface) }] : []
        })
      }),
    makeSandbox() {
      const fd = makeAnonymousNetns()
      return { target: `/proc/${process.pid}/fd/${fd}`, remove: () => closeSync(fd) }
    },
    [Symbol.dispose]: () => stack.dispose(),
  }
}

const RTN_UNICAST = 1
