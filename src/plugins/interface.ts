// SPDX-License-Identifier: Apache-2.0

import {
  type Attachment,
  type AttachmentKey,
  findAttachment,
  finishAttachment,
  forgetAttachment,
  listAttachments,
  noteTraces,
  putAttachment,
  setAttachmentState,
  tryAddAttachment,
} from '#allocator'
import { type Prefix, parsePrefix } from '#base'
import {
  type Call,
  CniError,
  codes,
  decode,
  formatJson,
  type Ipam,
  type JsonObject,
  type JsonValue,
  object,
  optional,
  type Plugin,
  type Result,
  requireIps,
  string,
  type ValidAttachment,
} from '#cni'
import type { FirewallPart } from '#host'
import { expectedResult, findPod } from './expectation.ts'
import { unlessBusy } from './lanes.ts'
import { asDel, delRecorded, GC_GUARD_MS, inOwnNetns, keyOf, recordOf } from './record.ts'
import { everyStep } from './steps.ts'
import type { World } from './world.ts'

/**
 * What tells one interface plugin from another. `interfacePlugin` makes a CNI plugin of it: the record in the journal, the
 * way back when something fails, duplicates, the IPAM plugin, and the frames of CHECK, STATUS and GC are the same for all.
 *
 * `Traces` is all that DEL must know when nothing else is left to ask: plain JSON, addresses as text. `hostLink` in it, if
 * any, names a link on the node that dies with the container's namespace: as long as it is there, so is the container.
 */
export type InterfacePlugin<Config, Traces extends JsonValue> = {
  readonly type: string
  /** Whether it takes addresses: `none` for plugins that work on what earlier ones of the chain made. */
  readonly ipam: 'required' | 'optional' | 'none'
  /** Reads a configuration, without a look at the machine. @throws {CniError} 7 naming the key */
  parse(config: JsonObject, call: Call): Config
  /** Joins the container, step by step; each step that leaves something behind is noted before and registers its undo. */
  attach(attach: Attach<Config, Traces>): Promise<Result>
  /** Removes what an attachment left. Absence is success, also that of the namespace (`call.netnsFd`). */
  detach(traces: Traces, at: At): Promise<void>
  /** What an attachment without a record left, found by what follows from the key alone. */
  findTraces(at: At): Promise<readonly Traces[]>
  /** True if what an earlier ADD made is still there: a second one is an error then. */
  isThere(traces: Traces, at: At): Promise<boolean>
  /** The differences between an attachment and what its ADD made, in words. */
  findFaults(check: Check<Config, Traces>): Promise<readonly string[]>
  /** STATUS. @throws {CniError} 50 naming what is missing, and how to get it */
  requireReady?(config: Config, world: World): Promise<void>
  /** Its link is the container's alone: as long as the namespace lives, by whatever path, so do link and addresses. */
  readonly isInContainer?: true
  /** The part of the firewall's table that it needs, where that is not `pods`. */
  readonly firewallPart?: FirewallPart
  /** The same, where it depends on the attachments. */
  firewallPartsOf?(all: readonly Traces[]): readonly FirewallPart[]
  /** Puts back the firewall elements of attachments after somebody flushed the table, all that are ready. */
  restore?(all: readonly Traces[], world: World): Promise<void>
}

/** One attachment, and what may be touched. */
export type At = { readonly call: Call; readonly world: World; readonly key: AttachmentKey }

export type Attach<Config, Traces> = At & {
  readonly config: Config
  /** The IPAM plugin asks by the link itself: it has to be in the container, and up, before `takeAddresses`. */
  readonly asksByLink: boolean
  /**
   * Asks the IPAM plugin, for what can be refused without addresses to be refused before. Nothing but `{}` without one.
   * @throws {CniError} 105 where it gives none
   */
  takeAddresses(): Promise<Result>
  /** Writes into the journal what there will be to remove, before it is made. */
  note(traces: Traces): void
  /** Registers how the step just done is taken back. What cannot be taken back stays in the journal for the next DEL. */
  undo(step: () => Promise<void>): void
}

export type Check<Config, Traces> = At & {
  readonly config: Config
  /** The runtime's, see `expectedResult`. */
  readonly prevResult: Result
  /** The container's interface in `prevResult`, and where it stands there; undefined only where `ipam` is `none`. */
  readonly pod: NonNullable<Result['interfaces']>[number] | undefined
  readonly podIndex: number
  /** The addresses of that interface. */
  readonly addresses: readonly Prefix[]
  /** What the journal knows of the attachment. */
  readonly traces: Traces | undefined
}

/** A plugin that keeps records in the journal. */
export type RecordedPlugin = Plugin<World> & {
  /** The parts of the firewall that these attachments need. */
  firewallParts?(traces: readonly string[]): readonly FirewallPart[]
  /** See `InterfacePlugin.restore`; takes the texts of the journal. */
  restore?(traces: readonly string[], world: World): Promise<void>
  /** What CHECK finds on the machine, without a question to the IPAM plugin. */
  findFaults(call: Call, world: World): Promise<readonly string[]>
}

/**
 * How old a record must be that GC may remove; an ADD that is under way may take as long as a call can (the reconciler looks
 * after those that never end).
 */
const GC_AGE_MS_MIN = { ready: GC_GUARD_MS, adding: 120_000, deleting: 0 } as const

/** The traces of an attachment that has made nothing yet. */
const NOTHING = 'null'

/** Makes a CNI plugin of what tells it from others. */
export function interfacePlugin<Config, Traces extends JsonValue>(
  definition: InterfacePlugin<Config, Traces>,
): RecordedPlugin {
  const { type, restore } = definition
  const tracesOf = ({ traces }: Pick<Attachment, 'traces'>): Traces | undefined =>
    traces === NOTHING ? undefined : (JSON.parse(traces) as Traces)
  const ipamOf = async (call: Call, world: World): Promise<Ipam | undefined> => {
    const ipamType = definition.ipam === 'none' ? '' : ipamTypeOf(call.config, definition.ipam)
    return ipamType === '' ? undefined : await world.ipam(call, ipamType)
  }

  async function add(call: Call, world: World): Promise<Result> {
    const ipam = await ipamOf(call, world)
    const config = definition.parse(call.config, call)
    const key = keyOf(call, type)
    const record = { ...key, ...recordOf(call, world.bootId), state: 'adding' as const, traces: NOTHING }
    if (!tryAddAttachment(world.journal, record)) {
      await clearStale(call, world, key)
      putAttachment(world.journal, record)
    }
    await using undo = new AsyncDisposableStack()
    // Runs last. The record stays where something could not be undone: the next DEL or the reconciler finishes it.
    let undone = true
    undo.defer(() => {
      if (undone) forgetAttachment(world.journal, key)
    })
    const deferUndo = (step: () => Promise<void>) =>
      undo.defer(() =>
        step().catch((error: unknown) => {
          undone = false
          throw error
        }),
      )
    const takeAddresses = async (): Promise<Result> => {
      if (ipam === undefined) return {}
      const lease = await ipam.add(call)
      deferUndo(async () => {
        // Of what could not be undone something may have the address still.
        if (undone) await ipam.del(asDel(call))
      })
      requireIps(lease)
      return lease
    }
    const result = await definition.attach({
      ...{ call, world, key, config, takeAddresses, asksByLink: asksByLink(call.config) },
      note: traces => requireKnown(noteTraces(world.journal, key, JSON.stringify(traces)), call),
      undo: deferUndo,
    })
    requireKnown(finishAttachment(world.journal, key, JSON.stringify(result)), call)
    undo.move()
    return result
  }

  async function del(call: Call, world: World): Promise<void> {
    const key = keyOf(call, type)
    const at = { call, world, key }
    // Without the journal, or without room in it, the container goes all the same, and its record with the next DEL.
    let record: Attachment | undefined
    const remove = async () => {
      const known = record === undefined ? undefined : tracesOf(record)
      const remains = record === undefined ? await definition.findTraces(at) : known === undefined ? [] : [known]
      await inOwnNetns(
        record,
        world.bootId,
        call,
        own => everyStep(...remains.map(traces => () => definition.detach(traces, { ...at, call: own }))),
        { byAnyPath: definition.isInContainer === true && remains.length > 0 },
      )
    }
    const release = async () => {
      if (definition.ipam !== 'none') await (await ipamForDel(call, world))?.del(call)
    }
    // The addresses stay the attachment's until its link is gone: else two containers may have them.
    const removeThenRelease = async () => {
      await remove()
      await release()
    }
    await everyStep(
      () => {
        record = findAttachment(world.journal, key)
        if (record !== undefined) setAttachmentState(world.journal, key, 'deleting')
      },
      ...(asksByLink(call.config) ? [release, remove] : [removeThenRelease]),
    )
    if (record !== undefined) forgetAttachment(world.journal, key)
  }

  /**
   * An attachment of the same key may be there: a living one is an error; one that was never finished, or whose namespace
   * is another now, is removed first.
   */
  async function clearStale(call: Call, world: World, key: AttachmentKey): Promise<void> {
    const record = findAttachment(world.journal, key)
    if (record === undefined) return
    const now = recordOf(call, world.bootId)
    const same = record.netnsInode === now.netnsInode && record.netnsDevice === now.netnsDevice
    const traces = tracesOf(record)
    if (record.state === 'ready' && record.bootId === world.bootId && same && traces !== undefined)
      if (await definition.isThere(traces, { call, world, key }))
        // The kernel gives the number of a namespace that is gone to the next one; but its links went with it.
        throw new CniError(
          codes.duplicateAttachment,
          `Cannot attach ${call.ifName}: container ${call.containerId} has it already`,
          { details: 'the earlier attachment is left as it is; send DEL first' },
        )
    const { config, stdin } = call
    await delRecorded(record, world.bootId, stale => del(stale, world), { env: asDel(call).env, config, stdin })
  }

  /** What CHECK compares with. @throws {CniError} where there is no result, or not of this container */
  function expectationOf(call: Call, world: World): Check<Config, Traces> {
    const config = definition.parse(call.config, call)
    if (call.prevResult === undefined) throw new CniError(codes.invalidConfig, 'Required prevResult missing')
    const key = keyOf(call, type)
    const record = findAttachment(world.journal, key)
    const prevResult = expectedResult(call, call.prevResult, record?.result ?? '')
    const { pod, podIndex } = findPod(call, prevResult, definition.ipam !== 'none')
    const addresses = (prevResult.ips ?? [])
      .filter(ip => ip.interface === undefined || ip.interface === podIndex)
      .map(({ address }) => parsePrefix(address))
    return {
      ...{ call, world, key, config, prevResult, pod, podIndex, addresses },
      traces: record === undefined ? undefined : tracesOf(record),
    }
  }

  async function check(call: Call, world: World): Promise<void> {
    const ipam = await ipamOf(call, world)
    const expectation = expectationOf(call, world)
    await ipam?.check(call)
    const faults = await definition.findFaults(expectation)
    if (faults.length > 0)
      throw new CniError(
        codes.checkFailed,
        `Attachment ${call.ifName} of ${call.containerId} is damaged: ${faults[0]}`,
        { details: faults.slice(1).join('; ') },
      )
  }

  async function status(call: Call, world: World): Promise<void> {
    const ipam = await ipamOf(call, world)
    const config = definition.parse(call.config, call)
    await ipam?.status(call)
    await definition.requireReady?.(config, world)
  }

  async function gc(call: Call, world: World, valid: readonly ValidAttachment[] | undefined): Promise<void> {
    const ipam = await ipamOf(call, world)
    const recorded = () => listAttachments(world.journal, { network: call.network }).filter(each => each.type === type)
    const now = Date.now()
    const living = new Set(valid?.map(({ containerId, ifName }) => `${containerId}/${ifName}`))
    const dead = valid === undefined ? [] : recorded().filter(each => !living.has(`${each.containerId}/${each.ifName}`))
    await everyStep(
      ...dead.map(record => async () => {
        if (now - record.changedMs < GC_AGE_MS_MIN[record.state]) return
        // What a call is under way for is left to it, and to the next GC.
        await unlessBusy(world, record, async () => {
          // Deletions take a while: what was attached anew meanwhile is another attachment.
          if (findAttachment(world.journal, record)?.changedMs !== record.changedMs) return
          await delRecorded(record, world.bootId, dead => del(dead, world))
        })
      }),
      // Read at the moment at which the IPAM is asked: what stays here keeps its address, also what came just now.
      () => ipam?.gc(valid === undefined ? call : withValid(call, [...valid, ...recorded()])),
    )
  }

  const findFaults = async (call: Call, world: World) => await definition.findFaults(expectationOf(call, world))
  const plugin = { type, add, del, check, status, gc, findFaults }
  /** An attachment that has made nothing is none of the firewall's. */
  const known = (all: readonly string[]) =>
    all.filter(traces => traces !== NOTHING).map(traces => JSON.parse(traces) as Traces)
  if (restore === undefined) return plugin
  return {
    ...plugin,
    firewallParts: (all: readonly string[]) =>
      definition.firewallPartsOf?.(known(all)) ?? [definition.firewallPart ?? 'pods'],
    restore: (all, world) => restore(known(all), world),
  }
}

/** An agent that started meanwhile may have taken an ADD for one that nobody finishes any more. @throws {CniError} 11 then */
function requireKnown(isKnown: boolean, { ifName }: Call): void {
  if (isKnown) return
  throw new CniError(codes.tryAgainLater, `Cannot attach ${ifName}: the attachment was withdrawn meanwhile`)
}

const ipamKeys = object({ ipam: optional(object({ type: optional(string, '') })) })

/** @throws {CniError} 7 where a plugin that needs addresses names no IPAM plugin */
function ipamTypeOf(config: JsonObject, need: 'required' | 'optional'): string {
  const type = decode(ipamKeys, config).ipam?.type ?? ''
  if (type === '' && need === 'required')
    throw new CniError(codes.invalidConfig, 'Cannot attach without addresses: "ipam.type" is missing', {
      details: 'name an IPAM plugin, for example {"ipam": {"type": "tcnp-ipam", …}}',
    })
  return type
}

/** The IPAM plugin that a configuration names, which need not be valid any more; empty where it names none. */
export function namedIpam({ ipam }: JsonObject): string {
  const type = ipam !== null && typeof ipam === 'object' && 'type' in ipam ? ipam['type'] : undefined
  return typeof type === 'string' ? type : ''
}

async function ipamForDel(call: Call, world: World): Promise<Ipam | undefined> {
  const type = namedIpam(call.config)
  return type === '' ? undefined : await world.ipam(call, type)
}

/** The reference's `dhcp` sends its questions, and its release (RFC 2131, DHCPRELEASE), by the container's link. */
const asksByLink = (config: JsonObject): boolean => namedIpam(config) === 'dhcp'

/** The same call with another list of what is to stay. */
function withValid(call: Call, valid: readonly ValidAttachment[]): Call {
  const list = valid.map(({ containerId, ifName }) => ({ containerID: containerId, ifname: ifName }))
  const config = { ...call.config, 'cni.dev/valid-attachments': list, 'cni.dev/attachments': list }
  return { ...call, config, stdin: new TextEncoder().encode(formatJson(config)) }
}
