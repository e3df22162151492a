// SPDX-License-Identifier: Apache-2.0

import { attributes, bytes, type Infer, nested, string, u32be } from '#netlink'

// linux/netfilter/nf_tables.h
const NFTA_DATA_VALUE = 1
const NFTA_DATA_VERDICT = 2
const NFTA_VERDICT_CODE = 1
const NFTA_VERDICT_CHAIN = 2

/** NF_DROP, NF_ACCEPT and enum nft_verdicts; the negative ones as the 32 bits that go over the wire. */
const verdictCodes = {
  drop: 0,
  accept: 1,
  jump: 0xff_ff_ff_fd,
  goto: 0xff_ff_ff_fc,
  return: 0xff_ff_ff_fb,
} as const

/** What stands in a register, a map's value or an immediate: bytes or a verdict. */
export const data = nested(
  attributes({
    value: [NFTA_DATA_VALUE, bytes],
    verdict: [
      NFTA_DATA_VERDICT,
      nested(attributes({ code: [NFTA_VERDICT_CODE, u32be], chain: [NFTA_VERDICT_CHAIN, string()] })),
    ],
  }),
)
export type Data = Infer<typeof data>

/** A packet's fate, as nft writes it. */
export type Verdict = 'accept' | 'drop' | 'return' | { readonly jump: string } | { readonly goto: string }

/** The verdict as data. */
export function verdictData(verdict: Verdict): Data {
  if (typeof verdict === 'string') return { verdict: { code: verdictCodes[verdict] } }
  return 'jump' in verdict
    ? { verdict: { code: verdictCodes.jump, chain: verdict.jump } }
    : { verdict: { code: verdictCodes.goto, chain: verdict.goto } }
}
