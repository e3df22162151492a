// SPDX-License-Identifier: Apache-2.0

import type { Deadline } from '#base'
import { attributes, bodyEncoder, NetlinkError, NLM_F_ACK, type Request, type Transport, u32be } from '#netlink'
import { type Change, decodeAnswer, message, NFT_MSG_GETGEN, nfgenmsg } from './message.ts'

// linux/netfilter/nfnetlink.h
const NFNL_MSG_BATCH_BEGIN = 0x10
const NFNL_MSG_BATCH_END = 0x11
const NFNL_SUBSYS_NFTABLES = 10
const NFNL_BATCH_GENID = 1
// linux/netfilter/nf_tables.h
const NFTA_GEN_ID = 1

const batchAttributes = attributes({ generation: [NFNL_BATCH_GENID, u32be] })
const generationAttributes = attributes({ id: [NFTA_GEN_ID, u32be] })

/** The rule set changed between reading its generation and a batch that was bound to it (asm-generic/errno.h). */
export const ERESTART = 85

/** A change that the kernel refused, and with it the whole batch. `object` names the table, chain, set or element. */
export class NftablesError extends NetlinkError {
  override readonly name = 'NftablesError'
  readonly object: string

  constructor(cause: NetlinkError, object: string) {
    super(cause.request, cause.errno, cause.extack, cause.offset)
    this.object = object
    this.cause = cause
  }
}

export type CommitOptions = {
  /** Refuse the batch with ERESTART if anything in the namespace's rule set changed since this generation. */
  readonly generation?: number
  readonly deadline?: Deadline
}

/**
 * Carries out all changes, or none. One send; the rule set is never seen half changed.
 * @throws {NftablesError} of the first change that was refused; nothing is changed then.
 */
export function commit(transport: Transport, changes: readonly Change[], options: CommitOptions = {}): void {
  if (changes.length === 0) return
  const { generation, deadline } = options
  const requests = [
    frame(NFNL_MSG_BATCH_BEGIN, generation === undefined ? {} : { generation }),
    // The kernel reports every refusal, asked or not, in order; the last one's acknowledgement stands for all.
    ...changes.map((change, index) => (index === changes.length - 1 ? acknowledged(change) : change)),
    frame(NFNL_MSG_BATCH_END, {}),
  ]
  try {
    transport.execute(requests, deadline)
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error
    const object = changes.find(change => change.about === error.request)?.object ?? 'the rule set'
    throw new NftablesError(error, object)
  }
}

const acknowledged = (change: Change): Change => ({ ...change, flags: change.flags | NLM_F_ACK })

/** The frame names the subsystem in the resource id. An error of the commit itself is reported on the beginning. */
const frame = (type: number, values: { generation?: number }): Request => ({
  type,
  flags: 0,
  body: bodyEncoder(nfgenmsg, batchAttributes)({ resourceId: NFNL_SUBSYS_NFTABLES }, values),
  about: 'commit changes to nf_tables',
})

/** The namespace's generation: it grows with each batch of anybody. @throws {NetlinkError} */
export function readGeneration(transport: Transport): number {
  const request = message(
    NFT_MSG_GETGEN,
    'any',
    generationAttributes,
    {},
    {
      verb: 'read',
      object: 'the generation of nf_tables',
      flags: NLM_F_ACK,
    },
  )
  const answer = transport.execute([request])[0]!.messages[0]
  return answer === undefined ? 0 : (decodeAnswer(answer.body, generationAttributes).values.id ?? 0)
}
