// SPDX-License-Identifier: Apache-2.0

import { closeSync } from 'node:fs'
import type { Attachment, AttachmentKey } from '#allocator'
import { deadlineIn } from '#base'
import {
  type Call,
  type Command,
  formatJson,
  isJsonObject,
  type JsonObject,
  type JsonValue,
  oncePerConfig,
  parseJsonObject,
} from '#cni'
import { findNetnsPath, identifyNetns, type NetnsIdentity, tryOpenSameNetns } from '#host'

/** A GC list made this short a time before the call may not know an ADD that has just ended: what is younger stays. */
export const GC_GUARD_MS = 100

/** What identifies the attachment that a call is about. */
export const keyOf = (call: Call, type: string): AttachmentKey => ({
  network: call.network,
  containerId: call.containerId,
  ifName: call.ifName,
  type,
})

const SECRET = /password|secret|token/i
/** For releasing what an attachment holds when no DEL ever comes. */
const RECOVERY_MS = 60_000

/** The configuration without what nobody may read: secrets, and the result of earlier plugins. */
export function withoutSecrets(value: JsonValue): JsonValue {
  if (Array.isArray(value)) return value.map(withoutSecrets)
  if (!isJsonObject(value)) return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !SECRET.test(key) && key !== 'prevResult' && key !== 'runtimeConfig')
      .map(([key, inner]) => [key, withoutSecrets(inner)]),
  )
}

const keptOf = oncePerConfig(withoutSecrets)

/** What the journal keeps of a call: enough to do its DEL without the caller. */
export function recordOf(
  call: Call,
  bootId: string,
): Pick<Attachment, 'bootId' | 'netns' | 'netnsDevice' | 'netnsInode' | 'config'> {
  const identity = call.netnsFd === undefined ? undefined : identifyNetns(call.netnsFd)
  const { args, path, config } = call
  return {
    bootId,
    netns: call.netns,
    netnsDevice: identity?.device,
    netnsInode: identity?.inode,
    config: formatJson({ path, args, config: keptOf(config) }),
  }
}

/** The call that the journal kept, for another verb and without a namespace. */
export function callOf(attachment: Attachment, command: Command): Call {
  const kept = parseJsonObject(new TextEncoder().encode(attachment.config), 'journal entry')
  const config = kept['config'] as JsonObject
  const path = kept['path'] as string[]
  const args = kept['args'] as string
  const { network, containerId, ifName } = attachment
  return {
    command,
    containerId,
    ifName,
    netns: '',
    netnsFd: undefined,
    args,
    path,
    stdin: new TextEncoder().encode(formatJson(config)),
    config,
    network,
    cniVersion: typeof config['cniVersion'] === 'string' ? config['cniVersion'] : '0.1.0',
    prevResult: undefined,
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: containerId,
      CNI_IFNAME: ifName,
      CNI_NETNS: '',
      CNI_ARGS: args,
      CNI_PATH: path.join(':'),
    },
    deadline: deadlineIn(RECOVERY_MS),
    signal: new AbortController().signal,
  }
}

/** The same call as a DEL with time of its own: for undoing, when the caller may be gone. */
export const asDel = (call: Call): Call => ({
  ...call,
  command: 'DEL',
  env: { ...call.env, CNI_COMMAND: 'DEL' },
  deadline: deadlineIn(RECOVERY_MS),
  signal: new AbortController().signal,
})

/** Does the DEL that the journal kept, in the attachment's namespace where that is still the one that it was made in. */
export const delRecorded = (
  attachment: Attachment,
  bootId: string,
  del: (call: Call) => Promise<void>,
  more: Partial<Call> = {},
): Promise<void> => inOwnNetns(attachment, bootId, { ...callOf(attachment, 'DEL'), ...more }, del)

/**
 * Runs a call that names no namespace in the attachment's, where that is still the one that it was made in.
 * @param byAnyPath looks through the machine for a namespace that its own path does not lead to any more. The kernel gives
 *   numbers of dead namespaces to new ones: what runs must know by itself what is the attachment's
 * @throws where nobody can say whether it is, after the call was run without: something may be left there
 */
export async function inOwnNetns(
  attachment: Attachment | undefined,
  bootId: string,
  call: Call,
  run: (call: Call) => Promise<void>,
  { byAnyPath = false }: { byAnyPath?: boolean } = {},
): Promise<void> {
  if (attachment === undefined || call.netnsFd !== undefined) return await run(call)
  let netnsFd: number | undefined
  try {
    netnsFd = reopenNetns(attachment, bootId) ?? (byAnyPath ? await searchNetns(attachment, bootId) : undefined)
  } catch (error) {
    await run(call)
    throw error
  }
  if (netnsFd === undefined) return await run(call)
  const { netns } = attachment
  try {
    await run({ ...call, netns, netnsFd, env: { ...call.env, CNI_NETNS: netns } })
  } finally {
    closeSync(netnsFd)
  }
}

/** The namespace of an attachment, undefined where its path leads to none, or to another by now. */
function reopenNetns(attachment: Attachment, bootId: string): number | undefined {
  const identity = identityIn(attachment, bootId)
  return identity && tryOpenSameNetns(attachment.netns, identity)
}

/** The same by whatever leads to it; undefined where nothing does. */
async function searchNetns(attachment: Attachment, bootId: string): Promise<number | undefined> {
  const identity = identityIn(attachment, bootId)
  const path = identity && (await findNetnsPath(identity.inode))
  return path === undefined ? undefined : tryOpenSameNetns(path, identity!)
}

/** After a boot the same path and number may be another container's. One that was never known is no namespace's. */
const identityIn = (
  { bootId: made, netnsDevice: device = -1, netnsInode: inode = -1 }: Attachment,
  bootId: string,
): NetnsIdentity | undefined => (made === bootId ? { device, inode } : undefined)
