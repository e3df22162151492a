// SPDX-License-Identifier: Apache-2.0

import type { Deadline } from '#base'
import type { Result } from './result.ts'

export type Command = 'ADD' | 'DEL' | 'CHECK' | 'STATUS' | 'GC'

/** A network configuration as a plugin sees it: decoded JSON, keys as the user wrote them. */
export type JsonObject = { [key: string]: JsonValue }
export type JsonValue = string | number | boolean | null | JsonValue[] | JsonObject | JsonNumber
/** A number whose source text does not survive a double; kept as text (JSON.rawJSON). */
export type JsonNumber = { rawJSON: string }

/** One attachment that the runtime still knows (GC), CNI specification 1.1.0. */
export type ValidAttachment = { containerId: string; ifName: string }

/** What every call of a plugin carries, whoever made it: the shim, `mooring plugin`, a parent plugin in process. */
export type Call = {
  readonly command: Command
  /** Empty for STATUS and GC. */
  readonly containerId: string
  readonly ifName: string
  /** CNI_NETNS as given; empty where the caller gave none. */
  readonly netns: string
  /** The namespace behind `netns`, opened by whoever received the call and closed by it. Undefined: gone, or not a namespace. */
  readonly netnsFd: number | undefined
  /** CNI_ARGS as given: `K=V;K=V`. */
  readonly args: string
  /** CNI_PATH, split. */
  readonly path: readonly string[]
  /** The network configuration as it came on stdin. */
  readonly stdin: Uint8Array
  /** The same, decoded. */
  readonly config: JsonObject
  /** The network's name and version, already validated. */
  readonly network: string
  readonly cniVersion: string
  /** `prevResult` in the newest format, undefined where there was none. */
  readonly prevResult: Result | undefined
  /** The whole environment that the caller gave, for delegates. */
  readonly env: Readonly<Record<string, string>>
  readonly deadline: Deadline
  /** Aborted when the caller went away: stop, and undo. */
  readonly signal: AbortSignal
}

/**
 * A plugin. `World` is what it may touch (kernel, addresses, delegates); who calls it decides which world it meets.
 *
 * `add` is all or nothing. `del` treats absence as success and runs every step although one fails.
 */
export type Plugin<World> = {
  readonly type: string
  /**
   * False for a plugin that works without the container's namespace, as IPAM plugins do: then ADD and CHECK bear a CNI_NETNS that
   * leads nowhere. @default true
   */
  readonly needsNetns?: boolean
  add(call: Call, world: World): Promise<Result>
  del(call: Call, world: World): Promise<void>
  check(call: Call, world: World): Promise<void>
  status(call: Call, world: World): Promise<void>
  /** `valid` is undefined where the runtime passed no list: then nothing may be removed for its sake. */
  gc(call: Call, world: World, valid: readonly ValidAttachment[] | undefined): Promise<void>
}

/** The IPAM plugin named by a configuration, ours in process or a foreign one by exec; the parent does not see which. */
export type Ipam = {
  add(call: Call): Promise<Result>
  del(call: Call): Promise<void>
  check(call: Call): Promise<void>
  status(call: Call): Promise<void>
  gc(call: Call): Promise<void>
}
