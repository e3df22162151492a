// SPDX-License-Identifier: Apache-2.0

import { formatIp, formatMac, formatPrefix, parseIp, tryParseMac } from '#base'
import { type Call, CniError, checkExpressible, codes, type Result, requireIps } from '#cni'
import { type ChildInfo, chooseLinkIndex, type FirewallPart, type Master, makesChild, type PodLinkRoute } from '#host'
import { EBUSY, EEXIST, EINVAL, ENOENT, EOPNOTSUPP } from '#libc'
import { NetlinkError } from '#netlink'
import {
  type At,
  type Attach,
  type Check,
  type InterfacePlugin,
  interfacePlugin,
  type RecordedPlugin,
} from './interface.ts'
import { hasOtherLinks, type Lease, leaseOf, resultRoutes } from './lease.ts'
import { linkNames } from './pair.ts'
import { requireAvailable } from './ready.ts'
import { settleAddresses } from './settle.ts'
import { everyStep } from './steps.ts'
import type { World } from './world.ts'

/** What macvlan and ipvlan have in common in a configuration, and what each makes of its own keys. */
export type ChildConfig = {
  /** Name of the master; empty: the link of the default route. */
  readonly master: string
  /** The master is in the container: because the configuration says so, or because an earlier plugin made it there. */
  readonly masterInPod: boolean
  /** 0: the master's. */
  readonly mtu: number
  readonly info: ChildInfo
  /** The MAC that somebody asked for. */
  readonly mac: Uint8Array | undefined
  /** The link has the master's MAC: all of ipvlan, and macvlan in mode passthru. */
  readonly sharesMac: boolean
  /** Addresses and routes of an earlier plugin that the link takes over, where there is no IPAM plugin. */
  readonly inherited: Pick<Result, 'ips' | 'routes'> | undefined
  /** The link may go without addresses. */
  readonly layer2: boolean
  /** The link neither asks nor answers who has an address, and somebody is to answer for it. */
  readonly needsAnswers: boolean
  readonly dns: Pick<Result, 'dns'>
}

/** What the node answers for a link that is silent. */
type Answers = { readonly link: string; readonly owner: string; readonly addresses: string[] }

/** The link goes with its namespace; of what is on the node only the answers must be taken back. */
export type ChildTraces = {
  /** The link's number in the container; null where the link is not known of. */
  readonly index: number | null
  readonly kind: string
  /** Number of the master, on the node unless `masterInPod`. */
  readonly master: number
  readonly masterInPod: boolean
  readonly mode: number
  readonly flags: number
  readonly answers: Answers | null
  /** Destination and gateway of each route, so that CHECK can tell them from those of later plugins. */
  readonly routes: string[]
}

const describeRoute = ({ destination, gateway }: PodLinkRoute) =>
  `${formatPrefix(destination)} ${gateway === undefined ? '-' : formatIp(gateway)}`

type Definition<Config> = Pick<InterfacePlugin<Config, ChildTraces>, 'parse'> & {
  readonly type: ChildInfo['kind']
  /** Refuses what the links that are there already would suffer from. */
  refuse?(attach: Attach<Config, ChildTraces>, master: Master): void
}

/** Makes a plugin of what tells macvlan and ipvlan apart. */
export const childPlugin = <Config extends ChildConfig>({ type, parse, refuse }: Definition<Config>): RecordedPlugin =>
  interfacePlugin<Config, ChildTraces>({
    type,
    ipam: 'optional',
    parse,
    async attach(attach) {
      const { call, config, world } = attach
      const master = await masterOf(config, call, world)
      const mtuBytes = mtuFor(config, master)
      refuseMac(config, master)
      refuse?.(attach, master)
      if (!attach.asksByLink) {
        const lease = await leaseFor(attach)
        return resultOf(attach, await make(attach, master, mtuBytes, lease), lease)
      }
      const made = await make(attach, master, mtuBytes, { addresses: [], routes: [] })
      const lease = await leaseFor(attach)
      await addLease(attach, lease)
      return resultOf(attach, made, lease)
    },
    detach: (traces, { call, world }) => detach(traces, call.netnsFd, world),
    findTraces: at => findTraces(type, at),
    async isThere({ index, kind }, { call, world }) {
      if (index === null) return false
      return (await world.host.describePodLink({ netnsFd: call.netnsFd!, link: { index } }))?.kind === kind
    },
    findFaults,
    // By its number, a large random one, the link is told from those of a new namespace with the old one's number.
    isInContainer: true,
    requireReady: (config, world) => requireReady(type, config, world),
    ...(type === 'ipvlan' ? { firewallPartsOf, restore } : {}),
  })

const firewallPartsOf = (all: readonly ChildTraces[]): FirewallPart[] =>
  all.some(({ answers }) => answers !== null) ? ['silentPods'] : []

async function detach({ index, kind, answers }: ChildTraces, netnsFd: number | undefined, world: World): Promise<void> {
  await everyStep(
    () => answers !== null && world.host.stopAnswering({ answers: withIps(answers) }),
    () => netnsFd !== undefined && index !== null && world.host.removePodLink({ netnsFd, link: { index, kind } }),
  )
}

const withIps = ({ addresses, ...rest }: Answers) => ({ ...rest, addresses: addresses.map(parseIp) })

async function restore(all: readonly ChildTraces[], world: World): Promise<void> {
  for (const { answers } of all) {
    if (answers === null) continue
    const link = await world.host.findMaster({ name: answers.link, netnsFd: undefined })
    if (link !== undefined) await world.host.answerFor({ link, answers: withIps(answers) })
  }
}

const findMaster = ({ master, masterInPod }: ChildConfig, call: Pick<Call, 'netnsFd'>, world: World) =>
  world.host.findMaster({
    name: master === '' ? undefined : master,
    netnsFd: masterInPod ? call.netnsFd : undefined,
  })

/** @throws {CniError} 7 where the master is missing */
async function masterOf(config: ChildConfig, call: Pick<Call, 'netnsFd'>, world: World): Promise<Master> {
  const master = await findMaster(config, call, world)
  if (master !== undefined) return master
  const where = config.masterInPod ? 'in the container' : 'on the node'
  if (config.master === '')
    throw new CniError(codes.invalidConfig, 'no default route interface found', {
      details: `name the link in "master": without it, it is that of the default route, and there is none ${where}`,
    })
  throw new CniError(codes.invalidConfig, `failed to lookup master "${config.master}": Link not found`, {
    details: `"master" names a link ${where} (ip link)`,
  })
}

/** @throws {CniError} 7 where it is more than the master's */
function mtuFor({ mtu }: ChildConfig, master: Master): number {
  if (mtu < 0 || mtu > master.mtuBytes)
    throw new CniError(codes.invalidConfig, `invalid MTU ${mtu}, must be [0, master MTU(${master.mtuBytes})]`)
  return mtu === 0 ? master.mtuBytes : mtu
}

/** @throws {CniError} 7 where the link cannot have the MAC that somebody asked for */
function refuseMac({ mac, sharesMac }: ChildConfig, master: Master): void {
  if (mac === undefined || !sharesMac || formatMac(mac) === formatMac(master.mac)) return
  throw new CniError(
    codes.invalidConfig,
    `Cannot give the link the MAC ${formatMac(mac)}: in this mode it has that of its master, ${formatMac(master.mac)}`,
    { details: 'leave "mac" out, or choose another mode' },
  )
}

/** Asks for addresses, or takes over those of an earlier plugin. */
async function leaseFor<Config extends ChildConfig>({
  call,
  config,
  takeAddresses,
}: Attach<Config, ChildTraces>): Promise<Lease & Pick<Result, 'ips'>> {
  const taken = await takeAddresses()
  const given = taken.ips === undefined && config.inherited !== undefined ? config.inherited : taken
  if (!config.layer2) requireIps(given)
  checkExpressible(given, call.cniVersion)
  return { ...leaseOf(given), ...(given.ips === undefined ? {} : { ips: given.ips }) }
}

/** The link as the kernel made it. */
type Made = Awaited<ReturnType<World['host']['addChild']>>

async function make<Config extends ChildConfig>(
  { call, config, key, world, note, undo }: Attach<Config, ChildTraces>,
  master: Master,
  mtuBytes: number,
  { addresses, routes }: Lease,
): Promise<Made> {
  const { info, masterInPod, sharesMac } = config
  const { owner, podMac } = linkNames(key)
  const netnsFd = call.netnsFd!
  const index = chooseLinkIndex()
  const flags = info.kind === 'ipvlan' ? info.data.flags : 0
  const ips = addresses.map(({ ip }) => ip)
  const answers = config.needsAnswers ? { link: master.name, owner, addresses: ips.map(formatIp) } : null
  const traces = {
    ...{ index, kind: info.kind, master: master.index, masterInPod, mode: info.data.mode, flags, answers },
    routes: routes.map(describeRoute),
  }
  note(traces)
  // The verbs clean up behind themselves; where they could not, this does, or the record stays.
  undo(() => detach(traces, netnsFd, world))
  const mac = sharesMac ? {} : { mac: config.mac ?? podMac }
  const link = { ifName: call.ifName, owner, mtuBytes, addresses, routes, ...mac }
  const made = await world.host
    .addChild({ info, master: { index: master.index, mac: master.mac }, masterInPod, netnsFd, index, link })
    .catch((error: unknown) => {
      throw explain(error, call, config, master)
    })
  if (config.needsAnswers) {
    const answered = world.host.answerFor({ link: master, answers: { owner, addresses: ips } })
    const rebuilt = await answered.catch((error: unknown) => {
      throw explainAnswer(error)
    })
    if (rebuilt) await world.restoreFirewall()
  }
  if (addresses.some(({ ip }) => ip.length === 16)) await settleAddresses(call, world)
  return made
}

/** For addresses that could be asked for with the link there only. Removing the link takes them back. */
async function addLease<Config extends ChildConfig>(
  { call, world }: Attach<Config, ChildTraces>,
  { addresses, routes }: Lease,
): Promise<void> {
  await world.host.configureNic({ netnsFd: call.netnsFd!, pod: { ifName: call.ifName, addresses, routes } })
  if (addresses.some(({ ip }) => ip.length === 16)) await settleAddresses(call, world)
}

const resultOf = <Config extends ChildConfig>(
  { call, config }: Attach<Config, ChildTraces>,
  made: Made,
  { ips, routes }: Lease & Pick<Result, 'ips'>,
): Result => ({
  interfaces: [{ name: call.ifName, mac: formatMac(made.mac), mtu: made.mtuBytes, sandbox: call.netns }],
  ...(ips === undefined ? {} : { ips: ips.map(ip => ({ ...ip, interface: 0 })) }),
  ...(routes.length === 0 ? {} : { routes: resultRoutes(routes) }),
  ...config.dns,
})

/** The kernel's refusal to make the link, in words that name the cause. */
function explain(error: unknown, { ifName }: Call, { info, masterInPod }: ChildConfig, master: Master): unknown {
  if (!(error instanceof NetlinkError) || error.request !== makesChild(info.kind, ifName)) return error
  const subject = `Cannot add ${info.kind} link ${ifName} on master ${master.name}`
  if (error.errno === EEXIST)
    return new CniError(
      codes.duplicateAttachment,
      `Cannot attach ${ifName}: the container has an interface of that name`,
      { details: 'choose another CNI_IFNAME, or delete the earlier attachment first', cause: error },
    )
  if (error.errno === EBUSY) {
    const other = info.kind === 'ipvlan' ? 'macvlan' : 'ipvlan'
    const why =
      master.bridgeIndex === undefined
        ? `it has ${other} links, or another user that takes all its packets`
        : `it is a port of link ${master.bridgeIndex}`
    return new CniError(codes.kernel, `${subject}: ${why} (EBUSY)`, {
      details: 'a master serves a bridge, macvlan or ipvlan, one of them: name another link in "master"',
      cause: error,
    })
  }
  if (error.errno === EINVAL && info.kind === 'macvlan')
    return new CniError(codes.kernel, `${subject}: mode passthru wants the master for one link alone (EINVAL)`, {
      details: `see which there are: ip -d link show type macvlan, ${masterInPod ? 'in the container' : 'on the node and in its containers'}`,
      cause: error,
    })
  return error
}

/** The kernel's refusal of rules that not every kernel has. */
const explainAnswer = (error: unknown): unknown =>
  error instanceof NetlinkError && (error.errno === ENOENT || error.errno === EOPNOTSUPP)
    ? new CniError(codes.kernel, error.message, {
        details:
          'load the module nft_fwd_netdev; or set "proxyNeighbour": false, where a router has routes to the containers',
        cause: error,
      })
    : error

/**
 * Without a record: the link by the name that was asked for, if its alias or the runtime's result says that it is ours, and
 * what is answered for it.
 */
async function findTraces(kind: ChildInfo['kind'], { call, world, key }: At): Promise<ChildTraces[]> {
  const { owner } = linkNames(key)
  const index = await findOwnLink(kind, owner, call, world)
  const answered = kind === 'ipvlan' ? await world.host.findAnswers({ owner }) : []
  const none = { index: null, kind, master: 0, masterInPod: false, mode: 0, flags: 0, answers: null, routes: [] }
  return [
    ...(index === null ? [] : [{ ...none, index }]),
    ...answered.map(each => ({ ...none, answers: { ...each, addresses: each.addresses.map(formatIp) } })),
  ]
}

async function findOwnLink(kind: string, owner: string, call: Call, world: World): Promise<number | null> {
  const { netnsFd, ifName: ifname, netns, prevResult } = call
  if (netnsFd === undefined) return null
  const link = await world.host.describePodLink({ netnsFd, link: { ifname } })
  if (link?.kind !== kind) return null
  // Also what upstream's plugin of that name made, before ours took its place.
  const told = prevResult?.interfaces?.find(({ name, sandbox }) => name === ifname && sandbox === netns)?.mac
  const isTold = link.owner === undefined && link.mac !== undefined && told?.toLowerCase() === formatMac(link.mac)
  return link.owner === owner || isTold ? link.index : null
}

async function findFaults<Config extends ChildConfig>(check: Check<Config, ChildTraces>): Promise<readonly string[]> {
  const { call, world, config, key, prevResult, pod, podIndex, traces } = check
  const mac = tryParseMac(pod?.mac ?? '')
  const { addresses, routes } = leaseOf({
    ips: (prevResult.ips ?? []).filter(ip => ip.interface === undefined || ip.interface === podIndex),
    routes: prevResult.routes ?? [],
  })
  const isOwn = (route: PodLinkRoute) => traces === undefined || traces.routes.includes(describeRoute(route))
  const faults = await world.host.findChildFaults({
    netnsFd: call.netnsFd!,
    // A chain's CHECK does not say where the master of its ADD was.
    masterInPod: traces?.masterInPod ?? config.masterInPod,
    masterName: config.master === '' ? undefined : config.master,
    info: config.info,
    link: {
      ...{ ifName: call.ifName, addresses, routes: routes.filter(isOwn) },
      byAnyLink: traces === undefined && hasOtherLinks(prevResult, call),
      ...{ mac, mtuBytes: pod?.mtu },
      ...(traces === undefined ? {} : { owner: linkNames(key).owner, index: traces.index ?? undefined, made: {} }),
    },
  })
  const master = config.needsAnswers ? await findMaster(config, call, world) : undefined
  if (master === undefined) return faults
  const answers = { owner: linkNames(key).owner, addresses: addresses.map(({ ip }) => ip) }
  return [...faults, ...(await world.host.findAnswerFaults({ link: master, answers }))]
}

async function requireReady(kind: ChildInfo['kind'], config: ChildConfig, world: World): Promise<void> {
  if (!(await world.host.isKindKnown({ kind })))
    throw new CniError(codes.notAvailable, `Cannot make ${kind} links: this kernel has none`, {
      details: `load the module (modprobe ${kind}), or start a kernel that has it`,
    })
  // Nothing can be said of a container that is not there yet.
  if (config.masterInPod) return
  await requireAvailable(() => masterOf(config, { netnsFd: undefined }, world))
}
