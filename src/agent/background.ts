// SPDX-License-Identifier: Apache-2.0

import { findAttachment } from '#allocator'
import { findOwnPlugin, keepFirewall, type World } from '#plugins'
import { Calls, type CallsOptions, laneOf, networkOf, outcomeOf } from './calls.ts'
import type { Lanes } from './lanes.ts'
import { reconcile, type Suspects } from './reconcile.ts'
import { hasNewEntries, spoolOf, workOffSpool } from './spool.ts'
import { Strays } from './strays.ts'
import type { ShimRequest } from './wire.ts'

export type BackgroundOptions = CallsOptions & { readonly dataDir: string; readonly reconcileMs: number }

/** What goes on without being asked: unfinished work, the spool, attachments that died without a DEL. */
export class Background {
  readonly #world: World
  readonly #lanes: Lanes
  readonly #options: BackgroundOptions
  readonly #suspects: Suspects = new Set()
  readonly #strays: Strays
  readonly #timer: NodeJS.Timeout
  readonly #tried = new Set<string>()
  #running: Promise<void> | undefined
  #keeping: Promise<unknown> | undefined

  constructor(world: World, lanes: Lanes, options: BackgroundOptions) {
    this.#world = world
    this.#lanes = lanes
    this.#options = options
    this.#strays = new Strays(world)
    this.#timer = setInterval(() => void this.run(), options.reconcileMs)
  }

  /** One round; a second call during it waits for the same. */
  run(): Promise<void> {
    this.#running ??= this.#round().finally(() => {
      this.#running = undefined
    })
    return this.#running
  }

  /** Does the DELs that shims promised since the last look. */
  async keepPromises(): Promise<void> {
    while (hasNewEntries(spoolOf(this.#options.dataDir), this.#tried)) await this.#workOff()
  }

  #workOff(): Promise<unknown> {
    const { logger, dataDir } = this.#options
    const calls = new Calls(this.#world, this.#lanes, this.#options)
    const signal = new AbortController().signal
    this.#keeping ??= workOffSpool(
      spoolOf(dataDir),
      this.#tried,
      async (request, promisedMs) => {
        if (this.#isOvertaken(request, promisedMs)) return 'done'
        const { type, env, stdin } = request
        const answer = await calls.serve({ type, env: { ...env, CNI_NETNS: '' }, stdin, netnsFd: undefined, signal })
        return outcomeOf(answer)
      },
      (file, error) => logger.error({ file, err: error }, 'promised DEL can never be done, set aside'),
    ).finally(() => {
      this.#keeping = undefined
    })
    return this.#keeping
  }

  /** True if the container was attached anew after the DEL was promised: it is not what was meant. */
  #isOvertaken({ type, env, stdin }: ShimRequest, promisedMs: number): boolean {
    const record = findAttachment(this.#world.journal, {
      network: networkOf(stdin),
      containerId: env['CNI_CONTAINERID'] ?? '',
      ifName: env['CNI_IFNAME'] ?? '',
      type: findOwnPlugin(type)?.type ?? type,
    })
    return record?.state === 'ready' && record.changedMs > promisedMs
  }

  async #round(): Promise<void> {
    const { logger } = this.#options
    try {
      await this.#workOff()
      await keepFirewall(this.#world)
      const released = await reconcile(this.#world, this.#suspects, (attachment, work) =>
        this.#lanes.run(laneOf(attachment), work),
      )
      for (const { attachment, why, error } of released) {
        const { network, containerId, ifName, type } = attachment
        const fields = { network, containerId, ifName, type, why }
        if (error === undefined) logger.info(fields, 'released')
        else logger.warn({ ...fields, err: error }, 'not released yet')
      }
      await this.#lookForStrays()
    } catch (error) {
      logger.error({ err: error }, 'reconcile')
    }
  }

  async #lookForStrays(): Promise<void> {
    const { logger } = this.#options
    const { removed, kept } = await this.#strays.round()
    if (removed.length > 0) logger.info({ elements: removed }, 'removed from the firewall: no record, no link')
    if (kept.length > 0) logger.warn({ elements: kept }, 'no record knows of these in the firewall: kept')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    await this.#running
  }
}
