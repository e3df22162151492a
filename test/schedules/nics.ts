// SPDX-License-Identifier: Apache-2.0

// The kernel of a node whose pods get NICs of its server, as host-device moves them: in memory, with NICs of a bus, which
// outlive the namespace that they are in; or the real one, with a veth for each, whose other end is the cloud's. Containers
// have real namespaces in both, because a NIC is found by them. Needs root.

import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { formatIp, tryParseMac } from '#base'
import { type Host, identifyNetns, inlineHost, makeAnonymousNetns, movesNic, type NicState } from '#host'
import { EEXIST, ENODEV } from '#libc'
import { NetlinkError, type Transport } from '#netlink'
import { addLink, decodeAddress, decodeLink, deleteLink, dumpAddresses, dumpLinks, getLink, setLink } from '#rtnetlink'
import { emptyHost, type Kernel, type KernelSite, makeNode, UPLINK } from './kernel.ts'
import { type PluggedNic, watchSlots } from './slots.ts'
import { troubled } from './trouble.ts'

type FakeNic = PluggedNic & {
  readonly index: number
  /** Inode of the container's namespace that it is in. */
  at: number | undefined
  name: string
  alias: string | null
  addresses: readonly string[]
}

/** NICs in memory. */
export function fakeNics(site: KernelSite): Kernel {
  let nics: FakeNic[] = []
  /** Inodes of namespaces that only a process of Mooring may hold open still. */
  const left = new Set<number>()
  /** Whose namespaces are, by their inodes. */
  const containers = new Map<number, string>()
  const waiting = new Set<() => void>()
  let next = UPLINK
  const tell = () => {
    for (const wake of waiting) wake()
  }
  const slots = watchSlots(site.simulator, {
    plug(nic) {
      const index = ++next
      nics.push({ ...nic, index, at: undefined, name: `eth${index}`, alias: null, addresses: [] })
      tell()
    },
    unplug(portId) {
      nics = nics.filter(nic => nic.portId !== portId)
    },
  })
  const inside = (netnsFd: number | undefined) => {
    const at = netnsFd === undefined ? Number.NaN : identifyNetns(netnsFd).inode
    return nics.filter(nic => nic.at === at)
  }
  const home = () => nics.filter(nic => nic.at === undefined)

  function stateOf({ name, index, mac, alias, portId }: FakeNic): NicState {
    return {
      ...{ name, index, mac, alias, kind: null, permanentMac: mac, parent: { bus: 'memory', name: portId } },
      ...{ mtuBytes: 1450, up: false, altnames: [], master: null, addresses: [], routes: [], readMs: Date.now() },
    }
  }
  function bring(nic: FakeNic, name: string, alias: string | null): void {
    const isFree = home().every(each => each === nic || each.name !== name)
    Object.assign(nic, { at: undefined, name: isFree ? name : `dev${nic.index}`, alias, addresses: [] })
  }
  /** A namespace has died: its NICs come back as they are called there. */
  function end(inode: number): void {
    left.delete(inode)
    for (const nic of nics.filter(({ at }) => at === inode)) bring(nic, nic.name, nic.alias)
    tell()
  }

  const host: Host = {
    ...emptyHost(site),
    findNicName: async ({ mac }) => home().find(nic => nic.mac === mac)?.name,
    async findNic({ selector }) {
      const nic = home().find(each => selector.by === 'mac' && each.mac === selector.mac)
      return nic === undefined ? undefined : { nic: stateOf(nic) }
    },
    async moveNicIn({ nic: { name, index }, netnsFd, ifName }) {
      const nic = home().find(each => each.index === index)
      if (inside(netnsFd).some(each => each.name === ifName)) throw new NetlinkError(movesNic(name, ifName), EEXIST)
      if (nic === undefined) throw new NetlinkError(movesNic(name, ifName), ENODEV)
      Object.assign(nic, { at: identifyNetns(netnsFd).inode, name: ifName, alias: name })
      return { index, mac: nic.mac, mtuBytes: 1450 }
    },
    async configureNic({ netnsFd, pod }) {
      const nic = inside(netnsFd).find(({ name }) => name === pod.ifName)
      if (nic === undefined) throw new Error(`Cannot configure link ${pod.ifName} in the pod: it is gone`)
      const addresses = pod.addresses.map(({ ip }) => formatIp(ip))
      for (const other of nics)
        for (const address of addresses)
          assert.ok(!other.addresses.includes(address), `${address} is on ${other.mac} too`)
      nic.addresses = addresses
      return { index: nic.index, mac: tryParseMac(nic.mac)!, mtuBytes: 1450, flags: 0 }
    },
    async bringNicHome({ nic: { name, mac, alias }, netnsFd }) {
      const nic =
        inside(netnsFd).find(each => each.mac === mac) ?? home().find(each => each.alias === name && each.mac === mac)
      if (nic !== undefined) bring(nic, name, alias)
      return nic !== undefined
    },
    isNicIn: async ({ nic, netnsFd }) => inside(netnsFd).some(({ mac }) => mac === nic.mac),
    hasPodLink: async ({ netnsFd, ifName }) => inside(netnsFd).some(({ name }) => name === ifName),
    awaitLinkChange: ({ ms }) =>
      new Promise(resolve => {
        const wake = () => {
          clearTimeout(timer)
          waiting.delete(wake)
          resolve()
        }
        const timer = setTimeout(wake, ms)
        waiting.add(wake)
      }),
  }
  const verbs = { attach: ['moveNicIn', 'configureNic'], detach: ['bringNicHome'] } as const
  const trouble = troubled(host, verbs, site.seed)
  return {
    ...{ host: trouble.host, refuse: trouble.refuse, refusals: trouble.refusals },
    carried: () =>
      nics.flatMap(({ at, addresses }) =>
        addresses.map(address => ({ address, containerId: at === undefined ? undefined : containers.get(at) })),
      ),
    podLinks: () => nics.flatMap(({ at, name, mac }) => (at === undefined ? [] : [`${name} ${mac}`])),
    makeSandbox(containerId) {
      const fd = makeAnonymousNetns()
      const { inode } = identifyNetns(fd)
      // The kernel gives the number of a namespace that is gone to the next one.
      if (left.has(inode)) end(inode)
      containers.set(inode, containerId)
      return {
        target: `/proc/${process.pid}/fd/${fd}`,
        remove() {
          left.add(inode)
          closeSync(fd)
        },
      }
    },
    abandon() {
      for (const inode of left) end(inode)
    },
    delayNextNic: slots.delayNext,
    heal() {
      trouble.heal()
      slots.heal()
    },
    [Symbol.dispose]() {
      slots[Symbol.dispose]()
      tell()
    },
  }
}

/** A veth dies with the namespace that it is in: another one comes, as a NIC of a bus would, as soon as that is seen. */
const RETURN_MS = 10

/** NICs of the real kernel. */
export function realNics(site: KernelSite): Kernel {
  const stack = new DisposableStack()
  const context = stack.use(makeNode(site))
  const cloud = makeAnonymousNetns()
  stack.defer(() => closeSync(cloud))
  const sandboxes = new Map<number, string>()
  const nics = new Map<string, PluggedNic & { readonly wire: string; readonly name: string }>()
  let next = 0
  const inCloud = <T>(run: Parameters<typeof context.inNetns<T>>[1]) =>
    context.onNode(() => context.inNetns(cloud, run))

  function plug(portId: string, link: { readonly ifname: string; readonly ifalias?: string }): void {
    const { mac, wire } = nics.get(portId)!
    const { ifname, ifalias } = link
    const peer = { ifname, address: tryParseMac(mac)!, netnsFd: context.home }
    inCloud(route => route.execute([addLink({ ifname: wire, linkinfo: { kind: 'veth', data: { peer } } })]))
    if (ifalias !== undefined)
      context.onNode(() => {
        const { index } = decodeLink(context.route.execute([getLink({ ifname })])[0]!.messages[0]!)
        context.route.execute([setLink({ index }, { ifalias })])
      })
  }
  const slots = stack.use(
    watchSlots(site.simulator, {
      plug({ portId, mac }) {
        const number = next++
        nics.set(portId, { portId, mac, wire: `wire${number}`, name: `eth${number}` })
        plug(portId, { ifname: `eth${number}` })
      },
      unplug(portId) {
        const wire = nics.get(portId)!.wire
        nics.delete(portId)
        inCloud(route => route.execute([deleteLink({ ifname: wire })]))
      },
    }),
  )
  function replaceLost(): void {
    const wires = inCloud(namesOf)
    for (const { portId, wire, name } of nics.values())
      if (!wires.includes(wire)) plug(portId, { ifname: `dev${next++}`, ifalias: name })
  }
  const timer = setInterval(replaceLost, RETURN_MS)
  stack.defer(() => clearInterval(timer))
  const inSandboxes = <T>(run: (route: Transport, containerId: string) => T[]): T[] =>
    context.onNode(() =>
      [...sandboxes].flatMap(([fd, containerId]) => context.inNetns(fd, route => run(route, containerId))),
    )
  return {
    // What comes is brought by this thread, which must not wait for it in the kernel.
    host: {
      ...inlineHost(context),
      awaitLinkChange: async ({ ms }) => await new Promise(resolve => setTimeout(resolve, Math.min(ms, RETURN_MS))),
    },
    carried: () =>
      inSandboxes((route, containerId) =>
        route.execute([dumpAddresses()])[0]!.messages.flatMap(message => {
          const { ip } = decodeAddress(message).prefix
          return ip.length === 4 && ip[0] !== 127 ? [{ address: formatIp(ip), containerId }] : []
        }),
      ),
    podLinks: () => inSandboxes(route => namesOf(route).filter(name => name !== 'lo')),
    makeSandbox(containerId) {
      const fd = makeAnonymousNetns()
      sandboxes.set(fd, containerId)
      return {
        target: `/proc/${process.pid}/fd/${fd}`,
        remove() {
          sandboxes.delete(fd)
          closeSync(fd)
        },
      }
    },
    delayNextNic: slots.delayNext,
    heal: slots.heal,
    [Symbol.dispose]: () => stack.dispose(),
  }
}

const namesOf = (route: Transport): string[] =>
  route.execute([dumpLinks()])[0]!.messages.map(message => decodeLink(message).ifname!)
