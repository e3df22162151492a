// SPDX-License-Identifier: Apache-2.0

import { finishAttachment, forgetAttachment, listAttachments, putAttachment, tryAddAttachment } from '#allocator'
import { CniError, codes, type Plugin } from '#cni'
import { asDel, GC_GUARD_MS, keyOf, recordOf } from './record.ts'
import type { World } from './world.ts'

/**
 * An IPAM plugin as an interface plugin of somebody else executes it: the attachment is recorded with its namespace, as an
 * interface plugin of ours does it. So what the container has is released when it died and no DEL ever comes.
 */
export const executedIpam = (plugin: Plugin<World>): Plugin<World> => ({
  ...plugin,

  async add(call, world) {
    // Without a namespace nobody can tell whether it lives.
    if (call.netnsFd === undefined) return await plugin.add(call, world)
    const { journal, bootId } = world
    const key = keyOf(call, plugin.type)
    const record = { ...key, ...recordOf(call, bootId), state: 'adding' as const, traces: 'null' }
    const isNew = tryAddAttachment(journal, record)
    const result = await plugin.add(call, world).catch((error: unknown) => {
      if (isNew) forgetAttachment(journal, key)
      throw error
    })
    // The earlier attachment had lost what it had: else this had been refused.
    if (!isNew) putAttachment(journal, record)
    // Where the journal cannot be written any more, the record stays: whoever finds it releases what was given.
    if (finishAttachment(journal, key, JSON.stringify(result))) return result
    await plugin.del(asDel(call), world)
    throw new CniError(codes.tryAgainLater, `Cannot give addresses to ${call.ifName}: they were withdrawn meanwhile`)
  },

  async del(call, world) {
    await plugin.del(call, world)
    forgetAttachment(world.journal, keyOf(call, plugin.type))
  },

  async gc(call, world, valid) {
    await plugin.gc(call, world, valid)
    if (valid === undefined) return
    const living = new Set(valid.map(({ containerId, ifName }) => `${containerId}/${ifName}`))
    const beforeMs = Date.now() - GC_GUARD_MS
    for (const { type, state, containerId, ifName, changedMs, network } of listAttachments(world.journal, call))
      if (type === plugin.type && state === 'ready' && changedMs <= beforeMs && !living.has(`${containerId}/${ifName}`))
        forgetAttachment(world.journal, { network, containerId, ifName, type })
  },
})
