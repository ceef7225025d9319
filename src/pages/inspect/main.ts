import "../shared/base.css";
import {plot, lineY} from "@observablehq/plot";
document.body.append(plot({marks: [lineY([1, 2])]}));
