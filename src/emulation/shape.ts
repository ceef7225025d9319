/** Size of a model's attention. */
export type AttentionShape = {
    /** number of layers */
    readonly layers: number,

    /** largest number of query heads of any layer */
    readonly heads: number
};
